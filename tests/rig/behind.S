/* Linked behind a target's own sources: objects of libraries that do not say which file they are made of seem to be
 * made of the last one that does, which is this. */
.file "behind.S"
