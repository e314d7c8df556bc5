"""What happens to data, one file per stage.

fetch, index, extract, featurize (`prepare` runs these four), stream, train, evaluate, report.
`stage` is the engine under the first four: fingerprints, atomic publishing, exact accounting.
"""
