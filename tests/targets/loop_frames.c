// build: -O2 -mno-stack-arg-probe -fno-inline -fno-ipa-cp -fno-ipa-sra -fno-ipa-icf
/* Functions with frames of every kind that gcc makes, to be stepped through. */
#include "frames.c"

int main(void)
{
    return (int)run(7);
}
