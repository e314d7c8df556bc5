"""What ``avsnn export`` runs: a trained network in the file formats of other programs."""
