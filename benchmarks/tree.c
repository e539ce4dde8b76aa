// tree: build a tree, walk it, tear it down, again and again.
//
// Models compilers and parsers: many nodes of one size that are made together
// and die together, beside one long-lived tree. Arguments: trees, threads.
//
// Punishes slow refilling of a cache by thousands of items of one size (the
// build), slow return of them (the tear-down), and items of one tree scattered
// over memory (the walk).
#include "bench.h"

struct node {
  struct node *left, *right;
  uint64_t key;
};

static struct node *build(int depth, uint64_t key) {
  struct node *node = (struct node *)take(sizeof *node);
  node->key = key;
  node->left = depth > 0 ? build(depth - 1, key * 2) : NULL;
  node->right = depth > 0 ? build(depth - 1, key * 2 + 1) : NULL;
  return node;
}

static uint64_t walk(const struct node *node) {
  return node == NULL ? 0 : node->key + 3 * walk(node->left) + 5 * walk(node->right);
}

static void tear_down(struct node *node) {
  if (node == NULL) return;
  tear_down(node->left);
  tear_down(node->right);
  free(node);
}

static void *plant(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct node *kept = build(14, 1);
  for (long i = 0; i < me->iterations; i++) {
    struct node *tree = build(8 + (int)(i % 9), (uint64_t)i);
    me->sum = mixed(me->sum, walk(tree));
    tear_down(tree);
  }
  me->sum = mixed(me->sum, walk(kept));
  tear_down(kept);
  return NULL;
}

int main(int argc, char **argv) {
  long trees = argument(argc, argv, 1, 2000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, trees, NULL, plant));
}
