/* SPDX-License-Identifier: MIT */
/*
 * A library that allocates when it is opened and when it is closed, to be opened and closed many
 * times. What it was given by churn_keep() it frees when it is closed.
 */
#include <stdlib.h>
#include <string.h>

#define PIECES 200

void *churn_piece(size_t n);
void churn_keep(void *object);

static void *pieces[PIECES], *kept;

__attribute__((constructor)) static void open_up(void)
{
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = calloc(1, i * 100 + 1);
        if (pieces[i] == NULL) {
            abort();
        }
    }
}

__attribute__((destructor)) static void close_down(void)
{
    char *text = malloc(100); /* not strdup: in a deeply bound library that is another's malloc */
    if (text != NULL) {
        memset(text, 't', 100);
    }
    for (size_t i = 0; i < PIECES; i++) {
        free(pieces[i]);
    }
    free(text);
    free(kept);
}

/* Gives one of its own away. */
void *churn_piece(size_t n)
{
    void *piece = pieces[n];
    pieces[n] = NULL;
    return piece;
}

void churn_keep(void *object)
{
    free(kept);
    kept = object;
}
