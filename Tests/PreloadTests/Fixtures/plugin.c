// A plugin for deepbind.c: allocates, resizes and frees with the malloc that it is
// bound to, which under RTLD_DEEPBIND is the C library's.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

void *plugin_malloc(size_t size) { return malloc(size); }
void *plugin_calloc(size_t size) { return calloc(1, size); }
void *plugin_memalign(size_t alignment, size_t size) { return memalign(alignment, size); }
void *plugin_realloc(void *block, size_t size) { return realloc(block, size); }
char *plugin_strdup(const char *text) { return strdup(text); }
size_t plugin_usable(void *block) { return malloc_usable_size(block); }
void plugin_free(void *block) { free(block); }
