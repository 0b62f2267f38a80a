"""Messages of the library: `logging` in its modules, plain lines on the screen in the programs."""

import logging

SCREEN = 'screen'
PACKAGES = ('lib', 'centernet')  # the package's name beside the programs of src/, and where it is installed


class ScreenHandler(logging.Handler):
    """Prints each message to the standard output of the moment, as `print` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record's message; a closed output raises, as from `print`."""
        print(self.format(record), flush=True)


def configure_logging() -> None:
    """Show the library's notes and warnings on the screen; programs call this, `import centernet` never does."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        if not any(handler.name == SCREEN for handler in logger.handlers):
            handler = ScreenHandler()
            handler.set_name(SCREEN)  # by which a second import of the package, under its other name, knows it
            logger.addHandler(handler)
