"""What happens to the data, from published files to a report.

Each entry of this list imports nothing but entries that stand below. ``evaluation`` and
``training`` do not import each other.

- ``listing``: lists the data sets, the stages and the runs that exist.
- ``experiments``: presets, and the tables of the paper that ``avsnn reproduce`` trains.
- ``evaluation``: measures a checkpoint, and writes the report.
- ``training``: trains a network.
- ``inference``: from a batch to the scores of a network.
- ``loading``: reads batches from caches or shards, in an order that the seed decides; augments.
- ``runs``: the files of a run folder: settings, checkpoints and metrics.
- ``prepare``: the stages discover, fetch, pair, index, extract and featurize.
- ``formats``: the files that ``prepare`` writes and ``loading`` reads.
- ``media``: decoders of audio, images and videos.
- ``transfer``: downloads.
- ``engine``: runs the units of a stage, and records what is done.
- ``settings_overrides``: builds checked settings from presets and ``--set``.
"""
