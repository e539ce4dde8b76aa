// sendtags.c: resources of a device, cached by a zone and every one of them ended.
//
// A network card encrypts TLS; each connection needs a send tag, memory of the driver's
// with a resource in the card's firmware. Making one takes long, so they are made in
// advance and never given up (NOFREE): init makes the firmware's part, fini ends it. But
// when the driver is unloaded every tag must be ended, cached or not, or the firmware
// refuses to make new ones until the machine is reset. That is what ALLFINI is for
// (FreeBSD, review D32702); unlike there, tags in partly used slabs are ended as well,
// and those that somebody has not given back are listed.
//
//   ./sendtags
#include "example.h"

#include <kegmalloc.h>
#include <stdint.h>

// ---- the firmware: a table of limited size ---------------------------------------------

enum { FIRMWARE_TAGS = 2048 };

static struct {
  unsigned char exists[FIRMWARE_TAGS];
  int count, commands;
} firmware;

static int firmware_create(void) {
  firmware.commands++;
  for (int handle = 0; handle < FIRMWARE_TAGS; handle++) {
    if (firmware.exists[handle]) continue;
    firmware.exists[handle] = 1;
    firmware.count++;
    return handle;
  }
  return -1;
}

static void firmware_destroy(int handle) {
  firmware.commands++;
  MUST(handle >= 0 && handle < FIRMWARE_TAGS && firmware.exists[handle]);
  firmware.exists[handle] = 0;
  firmware.count--;
}

// ---- the driver --------------------------------------------------------------------------

struct send_tag {
  int handle;
  uint64_t sequence;
  unsigned char key[32];
};

static int tag_init(void *item, size_t size, int flags) {
  (void)size, (void)flags;
  struct send_tag *tag = item;
  tag->handle = firmware_create();
  return tag->handle < 0 ? ENOSPC : 0;
}

static void tag_fini(void *item, size_t size) {
  (void)size;
  firmware_destroy(((struct send_tag *)item)->handle);
}

static int tag_ctor(void *item, size_t size, void *argument, int flags) {
  (void)size, (void)flags;
  struct send_tag *tag = item;
  tag->sequence = 0;
  memset(tag->key, *(unsigned char *)argument, sizeof tag->key);
  return 0;
}

static void tag_dtor(void *item, size_t size, void *argument) {
  (void)size, (void)argument;
  memset(((struct send_tag *)item)->key, 0, 32);
}

static keg_zone *load(void) {
  keg_zone *tags = keg_zone_create("send_tags", sizeof(struct send_tag), tag_ctor, tag_dtor, tag_init,
                                   tag_fini, 0, KEG_ZONE_NOFREE | KEG_ZONE_ALLFINI);
  MUST(tags && keg_zone_prealloc(tags, 256) == 0);
  MUST(firmware.count >= 256);
  return tags;
}

// Connections come and go; the firmware hears nothing of it.
static void connections(keg_zone *tags) {
  struct send_tag *open[200] = {0};
  int commands = firmware.commands;
  for (int i = 0; i < 100000; i++) {
    struct send_tag **place = &open[i * 7919u % 200];
    unsigned char key = (unsigned char)i;
    if (*place) {
      keg_zone_free(tags, *place);
      *place = NULL;
    } else {
      *place = keg_zone_alloc_arg(tags, &key, KEG_NOWAIT);
      MUST(*place && (*place)->key[31] == key && (*place)->sequence++ == 0);
      MUST(firmware.exists[(*place)->handle]);
    }
  }
  for (int i = 0; i < 200; i++)
    if (open[i]) keg_zone_free(tags, open[i]);
  printf("100000 connections cost %d commands\n", firmware.commands - commands);
  MUST(firmware.commands - commands <= FIRMWARE_TAGS);
}

int main(void) {
  for (int load_number = 1; load_number <= 2; load_number++) {
    keg_zone *tags = load();
    printf("load %d: %d tags exist in the firmware\n", load_number, firmware.count);
    connections(tags);
    if (load_number == 2) {
      // A tag that somebody still has: the zone says so, and stays as it is.
      unsigned char key = 1;
      struct send_tag *forgotten = keg_zone_alloc_arg(tags, &key, KEG_NOWAIT);
      MUST(forgotten);
      fflush(stdout);
      MUST(keg_zone_destroy(tags, 0) == EBUSY && firmware.exists[forgotten->handle]);
      printf("unload was refused: a tag is in use\n");
      keg_zone_free(tags, forgotten);
    }
    MUST(keg_zone_destroy(tags, 0) == 0);
    printf("unload %d: %d tags exist in the firmware\n", load_number, firmware.count);
    MUST(firmware.count == 0);
  }
  return 0;
}
