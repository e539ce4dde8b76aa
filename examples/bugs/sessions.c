// sessions.c: a list is closed, and its last entry is counted afterwards.
#include <stdio.h>
#include <stdlib.h>

struct session {
  struct session *next;
  int requests;
};

static struct session *open_session(struct session *next) {
  struct session *session = malloc(sizeof *session);
  session->next = next;
  session->requests = 0;
  return session;
}

static void close_all(struct session *session) {
  while (session) {
    struct session *next = session->next;
    free(session);
    session = next;
  }
}

static void count_request(struct session *session) { session->requests++; }

int main(void) {
  struct session *current = NULL;
  for (int i = 0; i < 3; i++) current = open_session(current);
#ifndef FIXED
  close_all(current);
  count_request(current);
#else
  count_request(current);
  close_all(current);
#endif
  puts("served");
  return 0;
}
