"""The kernels in NumPy. Where they are not compiled, these modules are those of the package above: see there."""
