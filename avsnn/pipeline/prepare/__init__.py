"""What ``avsnn prepare``, ``verify`` and ``repair`` run."""
