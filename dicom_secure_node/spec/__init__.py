"""The standard as data: tables, codes and section numbers, and nothing that acts."""
