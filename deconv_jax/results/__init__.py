"""What is made of clips, files and whole collections."""
