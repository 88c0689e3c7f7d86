"""Records in the normal form: a conversation, a text pair or a document, whatever their fields are called."""
