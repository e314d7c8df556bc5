"""What happens to the data, from published files to a report.

Each entry of this list imports nothing but entries that stand below. Three groups have entries that
do not import each other: ``listing``, ``inspection`` and ``library``; ``report`` and ``export``;
``evaluation``, ``prediction`` and ``training``.

- ``listing``: lists the data sets, the stages and the runs that exist.
- ``inspection``: one clip as a picture.
- ``library``: what ``import avsnn`` offers beside the command line.
- ``experiments``: presets, and the tables of the paper that ``avsnn reproduce`` trains.
- ``report``: the page of one run, or of several runs side by side.
- ``export``: the network of a run for other programs.
- ``evaluation``: measures a checkpoint.
- ``prediction``: answers for clips in files.
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
