/* What a renderer tells of its frames beside what they show: how many with a breakpoint at the API that ends
 * one, and how fast. */
#ifndef FRAME_COUNT_H
#define FRAME_COUNT_H

#include <stdio.h>
#include <windows.h>

static unsigned frames, frames_watched;
static LARGE_INTEGER first_frame, last_frame;

/* Before the API is called. */
static void count_frame(const void *api)
{
    QueryPerformanceCounter(frames++ ? &last_frame : &first_frame);
    frames_watched += *(const volatile unsigned char *)api == 0xCC;
}

static void tell_frames(void)
{
    LARGE_INTEGER second;
    QueryPerformanceFrequency(&second);
    double seconds = (double)(last_frame.QuadPart - first_frame.QuadPart) / (double)second.QuadPart;
    fprintf(stderr, "%u frames, %u of them watched; %.1f frames per second\n", frames, frames_watched,
            (frames - 1) / seconds);
}

#endif
