// unwind.c: registers of a signal frame, the loader's table of modules, and libunwind.
//
// libunwind is opened by hand, with RTLD_LOCAL, and is never NEEDED: as a needed
// library of a preload its _Unwind_* functions would take over the exceptions of the
// whole program. Of its two variants it is the one for remote processes
// (libunwind-x86_64), looking at this process through functions of ours: the local
// variant asks dl_iterate_phdr, which waits for the loader's lock.
#define _GNU_SOURCE
#include "unwind.h"

#include <dlfcn.h>
#include <libunwind.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include "platform.h"

__thread uintptr_t keg_stack_record;
char keg_stacks_bytes[KEG_STACKS_BYTES] __attribute__((aligned(64)));
char keg_stacks_up;

// ---- registers ------------------------------------------------------------------

void keg_read_context(const void *context, uintptr_t *registers) {
  // From the kernel's order to DWARF's.
  static const uint8_t place[KEG_REGISTER_COUNT] = {
      REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
      REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
  const ucontext_t *frame = context;
  for (int i = 0; i < KEG_REGISTER_COUNT; i++)
    registers[i] = (uintptr_t)frame->uc_mcontext.gregs[place[i]];
}

// ---- modules --------------------------------------------------------------------

extern int _dl_find_object(void *, struct dl_find_object *) __attribute__((weak));

bool keg_can_find_modules(void) { return _dl_find_object != 0; }

bool keg_find_module(uintptr_t address, struct keg_module *module) {
  struct dl_find_object found;
  if (!_dl_find_object || _dl_find_object((void *)address, &found) != 0) return false;
  module->start = (uintptr_t)found.dlfo_map_start;
  module->end = (uintptr_t)found.dlfo_map_end;
  module->base = found.dlfo_link_map->l_addr;
  module->unwind_table = (uintptr_t)found.dlfo_eh_frame;
  module->dynamic = (uintptr_t)found.dlfo_link_map->l_ld;
  module->path = found.dlfo_link_map->l_name;
  return true;
}

const char *keg_executable_path(void) {
  // Made once, at start: the program may change its directory. Two threads that
  // make it at once write the same bytes.
  static char path[1024];
  static bool is_made;
  if (is_made) return path;
  const char *name = (const char *)getauxval(AT_EXECFN);
  size_t used = 0;
  if (name && name[0] != '/') {
    // getcwd(2) as a system call counts the final zero.
    long length = keg_syscall6(79 /* getcwd */, (long)path, sizeof path, 0, 0, 0, 0);
    if (length > 0 && path[0] == '/') {
      used = (size_t)length - 1;
      if (used > 1) path[used++] = '/';
    }
    if (name[0] == '.' && name[1] == '/') name += 2;
  }
  for (; name && *name && used < sizeof path - 1; name++) path[used++] = *name;
  path[used] = 0;
  is_made = true;
  return path;
}

// ---- libunwind ------------------------------------------------------------------

static struct {
  unw_addr_space_t (*create_addr_space)(unw_accessors_t *, int);
  int (*set_caching_policy)(unw_addr_space_t, unw_caching_policy_t);
  int (*init_remote)(unw_cursor_t *, unw_addr_space_t, void *);
  int (*step)(unw_cursor_t *);
  int (*get_reg)(unw_cursor_t *, int, unw_word_t *);
  int (*is_signal_frame)(unw_cursor_t *);
  int (*search_unwind_table)(unw_addr_space_t, unw_word_t, unw_dyn_info_t *,
                             unw_proc_info_t *, int, void *);
  unw_addr_space_t space;
} libunwind;

static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *info,
                          int need_unwind_info, void *argument) {
  struct keg_module module;
  if (!keg_find_module(ip, &module) || !module.unwind_table) return -UNW_ENOINFO;
  // .eh_frame_hdr: version, three encodings, a pointer, the count, the table.
  const uint8_t *header = (const uint8_t *)module.unwind_table;
  if (header[0] != 1 || header[2] != 0x03 || header[3] != 0x3b || (header[1] & 0x0f) != 0x0b)
    return -UNW_ENOINFO;
  uint32_t count;
  memcpy(&count, header + 8, sizeof count);
  unw_dyn_info_t table = {0};
  table.start_ip = module.start;
  table.end_ip = module.end;
  table.format = UNW_INFO_FORMAT_REMOTE_TABLE;
  table.u.rti.segbase = module.unwind_table;
  table.u.rti.table_data = module.unwind_table + 12;
  table.u.rti.table_len = (unw_word_t)count * 8 / sizeof(unw_word_t);
  return libunwind.search_unwind_table(space, ip, &table, info, need_unwind_info, argument);
}

static void put_unwind_info(unw_addr_space_t space, unw_proc_info_t *info, void *argument) {
  (void)space, (void)info, (void)argument;
}

static int no_dynamic_info(unw_addr_space_t space, unw_word_t *address, void *argument) {
  (void)space, (void)address, (void)argument;
  return -UNW_ENOINFO;
}

// Pages that the walk under way has found readable, by the lower bits of their numbers:
// it reads a few many times.
static uintptr_t readable_pages[64];

static int access_mem(unw_addr_space_t space, unw_word_t address, unw_word_t *value,
                      int is_write, void *argument) {
  (void)space, (void)argument;
  if (is_write || address < 4096 || address > UINTPTR_MAX - 7) return -UNW_EINVAL;
  for (uintptr_t page = address & ~4095ul; page <= ((address + 7) & ~4095ul); page += 4096)
    if (readable_pages[page / 4096 % 64] != page) {
      if (!keg_is_readable(page)) return -UNW_EINVAL;
      readable_pages[page / 4096 % 64] = page;
    }
  memcpy(value, (const void *)address, sizeof *value);
  return 0;
}

static int access_reg(unw_addr_space_t space, unw_regnum_t number, unw_word_t *value,
                      int is_write, void *argument) {
  (void)space;
  if (is_write || number < 0 || number >= KEG_REGISTER_COUNT) return -UNW_EBADREG;
  *value = ((const uintptr_t *)argument)[number];
  return 0;
}

static int access_fpreg(unw_addr_space_t space, unw_regnum_t number, unw_fpreg_t *value,
                        int is_write, void *argument) {
  (void)space, (void)number, (void)value, (void)is_write, (void)argument;
  return -UNW_EBADREG;
}

static int resume(unw_addr_space_t space, unw_cursor_t *cursor, void *argument) {
  (void)space, (void)cursor, (void)argument;
  return -UNW_EINVAL;
}

static int get_proc_name(unw_addr_space_t space, unw_word_t address, char *name, size_t size,
                         unw_word_t *offset, void *argument) {
  (void)space, (void)address, (void)name, (void)size, (void)offset, (void)argument;
  return -UNW_ENOINFO;
}

// The one moment at which a library may be asked of the loader without waiting for
// somebody else's dlopen.
extern void keg_stacks_warm(void) KEG_UNWIND_HIDDEN;
__attribute__((constructor)) static void warm(void) { keg_stacks_warm(); }

// At its first use libunwind makes a pipe, for reads of this process that it does without
// our functions, and keeps it; the program's own descriptors would have other numbers
// than without us. It goes on without: no descriptor is to be had meanwhile.
static unw_addr_space_t create_space(unw_accessors_t *accessors) {
  struct {
    uint64_t soft, hard;
  } limit, none;
  bool is_lowered = keg_syscall6(302 /* prlimit64 */, 0, 7 /* NOFILE */, 0, (long)&limit, 0, 0) == 0;
  if (is_lowered) {
    none.soft = 0;
    none.hard = limit.hard;
    is_lowered = keg_syscall6(302, 0, 7, (long)&none, 0, 0, 0) == 0;
  }
  unw_addr_space_t space = libunwind.create_addr_space(accessors, 0);
  uintptr_t registers[KEG_REGISTER_COUNT] = {0};
  unw_cursor_t cursor;
  if (space) libunwind.init_remote(&cursor, space, registers);
  if (is_lowered) keg_syscall6(302, 0, 7, (long)&limit, 0, 0, 0);
  return space;
}

int keg_libunwind_open(void) {
  // Not closed again when it lacks something: its destructors are not ours to run.
  void *library = dlopen("libunwind-x86_64.so.8", RTLD_LOCAL | RTLD_NOW);
  if (!library) {
    // Or the program would be told of our failure.
    dlerror();
    return 1;
  }
#define FIND(function)                                                       \
  if (!(libunwind.function = (__typeof__(libunwind.function))dlsym(          \
            library, "_Ux86_64_" #function)))                                \
  return 2
  FIND(create_addr_space);
  FIND(set_caching_policy);
  FIND(init_remote);
  FIND(step);
  FIND(get_reg);
  FIND(is_signal_frame);
#undef FIND
  libunwind.search_unwind_table = (__typeof__(libunwind.search_unwind_table))dlsym(
      library, "_Ux86_64_dwarf_search_unwind_table");
  if (!libunwind.search_unwind_table) return 2;
  unw_accessors_t accessors = {
      .find_proc_info = find_proc_info,
      .put_unwind_info = put_unwind_info,
      .get_dyn_info_list_addr = no_dynamic_info,
      .access_mem = access_mem,
      .access_reg = access_reg,
      .access_fpreg = access_fpreg,
      .resume = resume,
      .get_proc_name = get_proc_name,
  };
  libunwind.space = create_space(&accessors);
  if (!libunwind.space) return 2;
  // Its cache is for modules that stay; rows of ours are cached in StackRow.swift.
  libunwind.set_caching_policy(libunwind.space, UNW_CACHE_NONE);
  return 0;
}

int keg_libunwind_walk(const uintptr_t *registers, uintptr_t *frames, int limit) {
  if (!libunwind.space) return -1;
  memset(readable_pages, 0, sizeof readable_pages);
  unw_cursor_t cursor;
  if (libunwind.init_remote(&cursor, libunwind.space, (void *)registers) != 0) return -1;
  int count = 0;
  bool is_exact = true;
  while (count < limit) {
    unw_word_t pc = 0;
    if (libunwind.get_reg(&cursor, UNW_REG_IP, &pc) != 0 || pc == 0) break;
    bool is_signal = libunwind.is_signal_frame(&cursor) > 0;
    frames[count++] = is_exact || is_signal ? pc : pc - 1;
    is_exact = is_signal;
    if (libunwind.step(&cursor) <= 0) break;
  }
  return count;
}
