"""What people and programs read, made from a Snapshot or a Record; nothing here looks anything up."""
