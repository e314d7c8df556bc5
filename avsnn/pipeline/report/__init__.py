"""The report: one page that holds everything that was measured on one run or on several runs."""
