"""Messages of the library: `logging` in its modules, plain lines on the screen in the programs."""

import logging

SCREEN = 'screen'
OWN = {'own': True}  # `extra` of a message about what this process alone has seen
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


def keep_own_messages() -> None:
    """Show of the library's messages only those about what no other rank has seen; for ranks beside rank 0.

    These are logged with `extra=OWN`.
    """
    for package in PACKAGES:
        for handler in logging.getLogger(package).handlers:
            if handler.name == SCREEN:
                handler.addFilter(lambda record: hasattr(record, 'own'))
