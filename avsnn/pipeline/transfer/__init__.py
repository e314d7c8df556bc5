"""Downloads of files from servers: HTTPS, Git LFS and Kaggle."""
