"""The exception for mistakes of the user, apart from the modules that raise it."""


class InputError(Exception):
    """The user gave bad input. Commands show the message without a traceback and end with exit code 2.

    The message names the file or option, the key, the value, and what is allowed.
    """
