"""The source itself and its documentation."""
