"""The five stages of ``avsnn prepare``, in order: discover, fetch, index, extract, featurize."""
