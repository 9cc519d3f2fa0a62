"""What the screens show, as plain values folded from events. No Textual here."""
