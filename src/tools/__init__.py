"""Small commands: converters, generators, evaluators. `centernet --help` lists them."""
