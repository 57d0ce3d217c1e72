/* Clients that follow the news.  They share one ring of what was last: each has its place in
 * it and takes the next when it has read the one before, so that a slow one costs nothing,
 * and is told how many it has missed. */
#pragma once

struct manager;
struct news;

void followers_tell(struct manager *m, const struct news *n);
