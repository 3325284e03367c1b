"""How pyfastcal came to be here, what of its optional company is, and what to install for the rest."""
