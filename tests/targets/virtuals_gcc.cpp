// build: -O1 -fno-inline -fno-devirtualize -fno-ipa-icf
/* The same classes by another compiler's rules. */
#include "virtuals.cpp"
