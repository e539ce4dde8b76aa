// A plugin opened with RTLD_DEEPBIND and its host free, resize and measure each
// other's blocks. Arguments: the plugin, and which of the two crosses the border:
// `to-host` (the host frees what the plugin allocated), `to-plugin`, or `both`.
// `keep` as third argument: the flag is known to be in force, so only the host, which
// can tell whose a block is, may be handed the other's.
#include "fixture.h"
#include <dlfcn.h>
#include <malloc.h>

static void *(*plugin_malloc)(size_t), *(*plugin_calloc)(size_t), *(*plugin_memalign)(size_t, size_t);
static void *(*plugin_realloc)(void *, size_t);
static char *(*plugin_strdup)(const char *);
static size_t (*plugin_usable)(void *);
static void (*plugin_free)(void *);

static const size_t sizes[] = {1, 24, 100, 1000, 5000, 40000, 127 * KIB, 200 * KIB, 5 * MIB, 70 * MIB};

static void *to_host(void *argument) {
  for (int round = 0; round < 20; round++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      size_t size = sizes[i], part = size < 4096 ? size : 4096;
      char *block = plugin_malloc(size);
      CHECK(block != NULL && malloc_usable_size(block) >= size, "size %zu", size);
      mark(block, part, i);
      block = realloc(block, size * 2);
      CHECK(block != NULL && is_marked(block, part, i), "size %zu", size);
      CHECK(malloc_usable_size(block) >= size * 2);
      free(block);
      block = plugin_calloc(size);
      CHECK(is_zero(block, part));
      free(block);
      block = plugin_memalign(256, size);
      CHECK(((uintptr_t)block & 255) == 0);
      free(block);
      block = plugin_malloc(size);
      CHECK(realloc(block, hide_size(0)) == NULL);
    }
  char *text = plugin_strdup("from the plugin");
  CHECK(!strcmp(text, "from the plugin"));
  free(text);
  return argument;
}

static void *to_plugin(void *argument) {
  for (int round = 0; round < 20; round++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      size_t size = sizes[i], part = size < 4096 ? size : 4096;
      char *block = malloc(size);
      mark(block, part, i);
      CHECK(plugin_usable(block) >= size);
      block = plugin_realloc(block, size * 2);
      CHECK(block != NULL && is_marked(block, part, i), "size %zu", size);
      plugin_free(block);
      plugin_free(memalign(4096, size));
    }
  plugin_free(strdup("from the host"));
  return argument;
}

int main(int argc, char **argv) {
  CHECK(argc >= 3);
  void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  CHECK(handle != NULL, "%s", dlerror());
  *(void **)&plugin_malloc = dlsym(handle, "plugin_malloc");
  *(void **)&plugin_calloc = dlsym(handle, "plugin_calloc");
  *(void **)&plugin_memalign = dlsym(handle, "plugin_memalign");
  *(void **)&plugin_realloc = dlsym(handle, "plugin_realloc");
  *(void **)&plugin_strdup = dlsym(handle, "plugin_strdup");
  *(void **)&plugin_usable = dlsym(handle, "plugin_usable");
  *(void **)&plugin_free = dlsym(handle, "plugin_free");
  CHECK(plugin_malloc && plugin_calloc && plugin_memalign && plugin_realloc && plugin_strdup && plugin_usable && plugin_free);
  int host = strcmp(argv[2], "to-plugin") != 0, plugin = strcmp(argv[2], "to-host") != 0;
  if (host) to_host(NULL);
  if (plugin) to_plugin(NULL);
  // In other threads the C library has other heaps.
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, host ? to_host : to_plugin, NULL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  dlclose(handle);
  return ok();
}
