"""What ``avsnn prepare``, ``verify``, ``repair`` and ``clean`` run."""
