// build: -O1 -luser32
/* Chooses from the menu of menu.c, whose window it waits for, half a minute: a number of each line of its standard
 * input; 0 closes it.
 */
#include <stdio.h>
#include <windows.h>

int main(void)
{
    HWND window;
    int which, patience = 3000;
    while (!(window = FindWindowA("two actions", NULL)) && patience--)
        Sleep(10);
    while (scanf("%d", &which) == 1)
        PostMessageA(window, which ? WM_COMMAND : WM_CLOSE, (WPARAM)which, 0);
    return 0;
}
