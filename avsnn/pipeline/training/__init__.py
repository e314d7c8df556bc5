"""What ``avsnn train`` runs."""
