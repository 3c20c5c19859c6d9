"""Submissions, examiner, sandbox, gradebook, reports."""
