"""Files from servers: HTTPS, Git LFS, Kaggle."""
