"""The one exception that stands for a mistake of the user."""


class InputError(Exception):
    """Bad input: shown as one message without a traceback; the process ends with exit code 2.

    The message names the file or option, the key, the value, and what is allowed.
    """
