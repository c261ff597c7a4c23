// build: -O2 -ladvapi32
/* A process that nobody may open: its own DACL is empty. It prints its id, and ends when its standard input does. */
#include <stdio.h>
#include <windows.h>

int main(void)
{
    ACL nobody;
    SECURITY_DESCRIPTOR security;
    if (!InitializeAcl(&nobody, sizeof nobody, ACL_REVISION) ||
        !InitializeSecurityDescriptor(&security, SECURITY_DESCRIPTOR_REVISION) ||
        !SetSecurityDescriptorDacl(&security, TRUE, &nobody, FALSE) ||
        !SetKernelObjectSecurity(GetCurrentProcess(), DACL_SECURITY_INFORMATION, &security))
        return 1;
    printf("%lu\n", GetCurrentProcessId());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
