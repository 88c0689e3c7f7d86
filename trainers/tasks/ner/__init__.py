"""The task ner: its records in all their formats, the wording of questions, and the scores."""
