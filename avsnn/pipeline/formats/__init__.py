"""What lies on disk between ``prepare`` and ``train``: what writers and readers share."""
