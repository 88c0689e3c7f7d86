"""rank: sequential recommendation in two stages, a retriever and a language model that ranks what it found."""
