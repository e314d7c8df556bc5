"""The stages of ``avsnn prepare``, in order: discover, fetch, pair, index, extract, featurize.

Stage 0, discover, is for data sets of folders, and stage pair for recordings of event sensors.
"""
