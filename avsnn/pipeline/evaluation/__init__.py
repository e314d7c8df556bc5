"""What ``avsnn evaluate`` runs: measures, pictures, report."""
