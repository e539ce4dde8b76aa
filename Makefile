# kegmalloc: the embedded build of the shared libraries, and the verbs.
#
#   make          libraries, command, header, pkg-config file and man pages in out/
#   make demo     builds, and runs a real program under the allocator
#   make test     every test            make check   static checks
#   make examples programs on kegmalloc.h
#   make bench    the race              make install PREFIX=/usr/local
#
# Package.swift builds the same sources as ordinary Swift for the tests and the
# command. Here each layer becomes an Embedded Swift module, lowest first; only those
# that C calls are compiled to objects, and everything below is inlined into them.

OUT      ?= out
BUILD    := $(OUT)/build
PREFIX   ?= /usr/local
VERSION  := 0.1.0
# Where the Swift package finds the library that is built here.
export PKG_CONFIG_PATH := $(abspath $(OUT))/lib/pkgconfig:$(PKG_CONFIG_PATH)

SWIFTC   ?= swiftc
SWIFT    ?= swift
SWIFT_BIN := $(dir $(realpath $(shell command -v $(SWIFTC) 2>/dev/null)))
CLANG    ?= $(SWIFT_BIN)clang
OBJCOPY  ?= objcopy

# -Ounchecked ships; CHECKED=1 builds with traps instead, for the tests.
ifdef CHECKED
OPTIMISE := -O
VARIANT  := checked
else
OPTIMISE := -Ounchecked -enforce-exclusivity=unchecked
VARIANT  := release
endif

SWIFTFLAGS := -enable-experimental-feature Embedded -wmo -parse-as-library \
  $(OPTIMISE) -no-allocations -Xfrontend -disable-stack-protector -Xfrontend -function-sections \
  -swift-version 6 -package-name keg -g -dwarf-version=4 -Xcc -ftls-model=initial-exec -Xcc -fPIC \
  -Xcc -fvisibility=hidden -I shim/Platform/include -I shim/Debug/include

CFLAGS := -O2 -DNDEBUG -gdwarf-4 -fPIC -std=gnu11 -Wall -Wextra -Werror -fno-builtin-malloc \
  -ftls-model=initial-exec -fvisibility=hidden -ffunction-sections -fdata-sections \
  -fno-omit-frame-pointer -I shim/Platform/include -I shim/Debug/include
LDFLAGS := -shared -fuse-ld=lld -Wl,--gc-sections,-z,now,-z,relro,-z,nodelete \
  -Wl,--build-id=sha1,--eh-frame-hdr,-soname,libkegmalloc.so.1 \
  -Wl,-Bsymbolic-functions,--dynamic-list=shim/program.list \
  -Wl,-z,undefs -nostdlib

# Names of the C and C++ libraries for functions of ours: no jump in between.
ALIASES := malloc=keg_malloc free=keg_free calloc=keg_calloc realloc=keg_realloc \
  reallocarray=keg_reallocarray posix_memalign=keg_posix_memalign \
  aligned_alloc=keg_aligned_alloc memalign=keg_aligned_alloc valloc=keg_valloc \
  pvalloc=keg_pvalloc malloc_usable_size=keg_usable_size malloc_trim=keg_trim \
  cfree=keg_free free_sized=keg_free free_aligned_sized=keg_free \
  _Znwm=keg_new _Znam=keg_new_array _ZdlPv=keg_free _ZdlPvSt11align_val_t=keg_free \
  _ZnwmSt11align_val_t=keg_aligned_new _ZnamSt11align_val_t=keg_aligned_new_array
COMMON_LDFLAGS := $(LDFLAGS)
# Its start, and what it costs a small process, are a matter of layout; equal functions are
# one, for the size of the file.
LDFLAGS += -Wl,-O2,--icf=all -Wl,-T,shim/layout.ld,--symbol-ordering-file=shim/startup.order,--no-warn-symbol-ordering
LDFLAGS += -Wl,--version-script=shim/exports.map $(foreach alias,$(ALIASES),-Wl,--defsym=$(alias))

# In the debug library they are those of the layer Debug (shim/Exports/operators.c
# defines the operators new there).
DEBUG_ALIASES := malloc=keg_debug_malloc free=keg_debug_free calloc=keg_debug_calloc \
  realloc=keg_debug_realloc _Znwm=keg_own_new _Znam=keg_own_new_array \
  posix_memalign=keg_debug_posix_memalign aligned_alloc=keg_debug_aligned_alloc \
  memalign=keg_debug_aligned_alloc valloc=keg_debug_valloc pvalloc=keg_debug_pvalloc \
  malloc_usable_size=keg_debug_usable_size malloc_trim=keg_trim cfree=keg_debug_free \
  free_sized=keg_debug_free_sized free_aligned_sized=keg_debug_free_aligned_sized \
  _ZdlPv=keg_debug_delete _ZdaPv=keg_debug_delete_array \
  _ZdlPvm=keg_debug_delete_sized _ZdaPvm=keg_debug_delete_array_sized \
  _ZdlPvSt11align_val_t=keg_debug_delete_aligned \
  _ZdaPvSt11align_val_t=keg_debug_delete_array_aligned \
  _ZnwmSt11align_val_t=keg_aligned_new _ZnamSt11align_val_t=keg_aligned_new_array \
  _ZdlPvmSt11align_val_t=keg_debug_delete_sized_aligned \
  _ZdaPvmSt11align_val_t=keg_debug_delete_array_sized_aligned
DEBUG_LDFLAGS = $(COMMON_LDFLAGS) -Wl,--version-script=$(DIR)/exports-debug.map \
  $(foreach alias,$(DEBUG_ALIASES),-Wl,--defsym=$(alias))

LAYERS  := Base Suppressions Pages Vmem Keg SizeClass Zone Stats Malloc ZoneAPI Leaks Debug
# Layers with functions that C calls: each gets an object of its own. What they use
# of other layers is inlined, or merged by the linker.
ENTRIES := Malloc ZoneAPI
DIR     := $(BUILD)/$(VARIANT)
MODULES := $(LAYERS:%=$(DIR)/%.swiftmodule)
C_FILES := $(wildcard shim/Platform/*.c shim/Exports/*.c)
OBJECTS := $(C_FILES:shim/%.c=$(DIR)/%.o) $(ENTRIES:%=$(DIR)/%.o)
# The debug library: the same, with the layer Debug, and operators that say who they are.
DEBUG_C_FILES := $(wildcard shim/Debug/*.c shim/DebugExports/*.c)
DEBUG_OBJECTS := $(C_FILES:shim/%.c=$(DIR)/%.o) $(ENTRIES:%=$(DIR)/framed/%.o)
DEBUG_OBJECTS := $(filter-out $(DIR)/Exports/operators.o $(DIR)/Exports/program.o $(DIR)/Exports/leaks.o,$(DEBUG_OBJECTS)) \
  $(DEBUG_C_FILES:shim/%.c=$(DIR)/%.o) $(DIR)/DebugExports/operators.o \
  $(DIR)/DebugExports/program.o $(DIR)/Debug.o
HEADERS := $(wildcard shim/Platform/include/* shim/Debug/include/*)
LIBRARY := $(DIR)/libkegmalloc.so
DEBUG_LIBRARY := $(DIR)/libkegmalloc-debug.so

.PHONY: all library setup command files
all: library command files

# One clear line when there is no toolchain, or no right to install what is missing.
setup:
	@tools/setup.sh $(SWIFTC)

library: setup
	@$(MAKE) --no-print-directory $(OUT)/lib/libkegmalloc.so $(OUT)/lib/libkegmalloc-debug.so

command: setup files
	$(SWIFT) build -c release --product kegmalloc
	$(SWIFT) build -c release --product kegmalloc-launch
	@mkdir -p $(OUT)/bin
	install -m 755 .build/release/kegmalloc .build/release/kegmalloc-launch $(OUT)/bin

# Nothing is done twice: tests that run side by side ask for it.
PAGES := $(foreach part,1 3,$(patsubst docs/man/%,$(OUT)/share/man/man$(part)/%,$(wildcard docs/man/*.$(part))))
files: $(OUT)/include/kegmalloc.h $(OUT)/lib/pkgconfig/kegmalloc.pc $(PAGES)

$(OUT)/share/man/man1/% $(OUT)/share/man/man3/%: docs/man/%
	@mkdir -p $(@D)
	install -m 644 $< $@

$(OUT)/include/kegmalloc.h: shim/include/kegmalloc.h
	@mkdir -p $(@D)
	install -m 644 $< $@

$(OUT)/lib/pkgconfig/kegmalloc.pc: shim/kegmalloc.pc.in Makefile
	@mkdir -p $(@D)
	sed -e 's|@PREFIX@|$${pcfiledir}/../..|' -e 's|@VERSION@|$(VERSION)|' $< > $@

$(OUT)/lib/libkegmalloc.so: $(LIBRARY)
	@mkdir -p $(@D)
	$(OBJCOPY) --only-keep-debug $< $(@D)/libkegmalloc.so.debug
	$(OBJCOPY) --strip-all --remove-section=.comment --add-gnu-debuglink=$(@D)/libkegmalloc.so.debug $< $@
	ln -sf libkegmalloc.so $(@D)/libkegmalloc.so.1

$(OUT)/lib/libkegmalloc-debug.so: $(DEBUG_LIBRARY)
	@mkdir -p $(@D)
	$(OBJCOPY) --only-keep-debug $< $@.debug
	$(OBJCOPY) --strip-debug --add-gnu-debuglink=$@.debug $< $@

$(LIBRARY): $(OBJECTS) shim/exports.map shim/layout.ld shim/startup.order
	$(CLANG) $(LDFLAGS) -o $@ $(OBJECTS) -lc

# It exports what the fast one does, and the calls that shim/DebugExports stands in front of.
DEBUG_EXPORTS := _exit; _Exit; abort; sigaction; signal; bsd_signal; sysv_signal; __sysv_signal; dlclose; \
  read; pread; pread64; recv; recvfrom; readlink; readlinkat; getcwd; getrandom; \
  __read_chk; __pread_chk; __pread64_chk; __recv_chk; __recvfrom_chk; __readlink_chk; __readlinkat_chk; __getcwd_chk; \
  readv; preadv; preadv64; preadv2; preadv64v2; recvmsg; recvmmsg; \
  fread; fread_unlocked; __fread_chk; __fread_unlocked_chk; \
  fclose; pclose; fgets; __fgets_chk; fputs; fprintf; __fprintf_chk; vfprintf; __vfprintf_chk; fflush; \
  closedir; readdir; readdir64; rewinddir; \
  write; pwrite; pwrite64; send; sendto; fwrite; fwrite_unlocked; \
  writev; pwritev; pwritev64; pwritev2; pwritev64v2; sendmsg; sendmmsg;

$(DIR)/exports-debug.map: shim/exports.map Makefile
	sed 's|^  local:|    $(DEBUG_EXPORTS)\n  local:|' $< > $@

$(DEBUG_LIBRARY): $(DEBUG_OBJECTS) $(DIR)/exports-debug.map
	$(CLANG) $(DEBUG_LDFLAGS) -o $@ $(DEBUG_OBJECTS) -lc

# exports.map alone decides what these export. Nothing in them is called often.
$(DIR)/Exports/%.o $(DIR)/DebugExports/%.o: CFLAGS += -Os -fvisibility=default -DKEG_VERSION=\"$(VERSION)\"

$(DIR)/DebugExports/operators.o $(DIR)/DebugExports/program.o: $(DIR)/DebugExports/%.o: shim/Exports/%.c $(HEADERS) Makefile
	@mkdir -p $(@D)
	$(CLANG) $(CFLAGS) -DKEG_DEBUG_LIBRARY -c -o $@ $<

$(DIR)/%.o: shim/%.c $(HEADERS) Makefile
	@mkdir -p $(@D)
	$(CLANG) $(CFLAGS) -c -o $@ $<

# A module is built after all modules below it: LAYERS is in order.
define LAYER_RULE
$(DIR)/$(1).swiftmodule: $(wildcard Sources/$(1)/*.swift) $(HEADERS) Makefile $(2)
	@mkdir -p $$(@D)
	$$(SWIFTC) $$(SWIFTFLAGS) -I $(DIR) -emit-module -module-name $(1) \
	  -emit-module-path $$@ $$(filter Sources/$(1)/%,$$^)
endef
BELOW :=
$(foreach layer,$(LAYERS),\
  $(eval $(call LAYER_RULE,$(layer),$(BELOW)))\
  $(eval BELOW += $(DIR)/$(layer).swiftmodule))

define ENTRY_RULE
$(DIR)/$(1).o: $(wildcard Sources/$(1)/*.swift) $(DIR)/$(1).swiftmodule
	$$(SWIFTC) $$(SWIFTFLAGS) -I $(DIR) -c -module-name $(1) -o $$@ $$(filter Sources/$(1)/%,$$^)
endef
$(foreach layer,$(ENTRIES) Debug,$(eval $(call ENTRY_RULE,$(layer))))

# Small rather than fast: what is called for every item has nothing to unroll.
SMALL := -Osize
ifndef CHECKED
SMALL += -assert-config Unchecked -Xfrontend -remove-runtime-asserts
endif
$(DIR)/ZoneAPI.o: SWIFTFLAGS += $(SMALL)

# In the debug library captures of stacks step over its own frames by frame pointers:
# those of Debug, and of what calls it, the zone calls.
$(DIR)/Debug.o $(DIR)/framed/%.o: SWIFTFLAGS += -Xcc -fno-omit-frame-pointer
define FRAMED_RULE
$(DIR)/framed/$(1).o: $(wildcard Sources/$(1)/*.swift) $(DIR)/$(1).swiftmodule
	@mkdir -p $$(@D)
	$$(SWIFTC) $$(SWIFTFLAGS) -I $(DIR) -c -module-name $(1) -o $$@ $$(filter Sources/$(1)/%,$$^)
endef
$(foreach layer,$(ENTRIES),$(eval $(call FRAMED_RULE,$(layer))))

# ---- verbs ------------------------------------------------------------------

.PHONY: demo examples docc test test-unit test-tsan test-preload test-programs check order bench benchmarks install clean

demo: all
	$(OUT)/bin/kegmalloc run --stats -- python3 tools/demo.py

test: all test-unit test-preload test-tsan

test-unit:
	SWIFT=$(SWIFT) tools/run-tests.sh --skip PreloadTests

# The preload tests run on the shipping build, and on one with traps.
test-preload: library files examples
	@$(MAKE) --no-print-directory CHECKED=1 $(BUILD)/checked/libkegmalloc.so $(BUILD)/checked/libkegmalloc-debug.so
	SWIFT=$(SWIFT) tools/run-tests.sh --filter PreloadTests
	KEGMALLOC_LIB=$(CURDIR)/$(BUILD)/checked/libkegmalloc.so SWIFT=$(SWIFT) tools/run-tests.sh --skip-build --filter PreloadTests

# The allocator's own thread has no thread-local storage, which instrumented code needs.
# Optimised: without it every pointer(to:) asks the Swift runtime for its type, under a
# lock, and the suites take four minutes of futex calls instead of ten seconds.
# Swift tells the sanitizer of every mutating call and inout argument as of a write to the
# first word of the struct, though it may be another's under another lock. Those calls are
# bound to a function that does nothing; loads and stores are still looked at.
TSAN_FLAGS := --sanitize=thread --scratch-path .build-tsan -c release \
  -Xswiftc -enable-testing -Xswiftc -DINVARIANTS -Xlinker --wrap=__tsan_external_write \
  -Xlinker --defsym=__wrap___tsan_external_write=__tsan_default_options
test-tsan:
	KEGMALLOC_CORE_ONLY=1 KEGMALLOC_CONF=background:off \
	  TSAN_OPTIONS="suppressions=$(CURDIR)/tools/tsan.supp history_size=7" \
	  SWIFT=$(SWIFT) tools/run-tests.sh $(TSAN_FLAGS) --filter '^(Base|Vmem|Keg|Zone|ZoneAPI)Tests\.'

# Slow ones: whole test-suites and servers. Needs tools/packages-programs.txt.
test-programs: library
	KEGMALLOC_TEST_PROGRAMS=1 SWIFT=$(SWIFT) tools/run-tests.sh --filter PreloadTests

# After functions of the boot or of slow paths were renamed. Needs valgrind.
order: library
	BUILD=$(DIR) tools/startup-order.sh

check: library
	@OUT=$(OUT) BUILD=$(DIR) tools/checks/all.sh

benchmarks: setup
	$(MAKE) -C benchmarks OUT=$(abspath $(OUT))/benchmarks

# Programs on kegmalloc.h, found through pkg-config.
examples: library files
	@$(MAKE) --no-print-directory -C examples OUT=$(abspath $(OUT))/examples

# The documentation of KegZones; a warning is an error.
docc:
	rm -rf $(BUILD)/symbols && mkdir -p $(BUILD)/symbols/KegZones $(OUT)/share/doc
	$(SWIFT) build --target KegZones --scratch-path $(BUILD)/symbols/build \
	  -Xswiftc -emit-symbol-graph -Xswiftc -emit-symbol-graph-dir -Xswiftc $(abspath $(BUILD))/symbols
	cp $(BUILD)/symbols/KegZones*.json $(BUILD)/symbols/KegZones
	docc convert Sources/KegZones/KegZones.docc --warnings-as-errors \
	  --additional-symbol-graph-dir $(BUILD)/symbols/KegZones --output-path $(OUT)/share/doc/KegZones \
	  --fallback-display-name KegZones --fallback-bundle-identifier kegmalloc.KegZones

bench: all benchmarks
	$(OUT)/bin/kegmalloc compare --suite $(BENCH)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include \
	  $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/man/man1 \
	  $(DESTDIR)$(PREFIX)/share/man/man3
	install -m 755 $(OUT)/bin/* $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(OUT)/include/* $(DESTDIR)$(PREFIX)/include
	install -m 755 $(OUT)/lib/libkegmalloc.so $(OUT)/lib/libkegmalloc-debug.so $(DESTDIR)$(PREFIX)/lib
	ln -sf libkegmalloc.so $(DESTDIR)$(PREFIX)/lib/libkegmalloc.so.1
	install -m 644 $(OUT)/lib/libkegmalloc.so.debug $(DESTDIR)$(PREFIX)/lib
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' shim/kegmalloc.pc.in \
	  > $(DESTDIR)$(PREFIX)/lib/pkgconfig/kegmalloc.pc
	install -m 644 $(OUT)/share/man/man1/* $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(OUT)/share/man/man3/* $(DESTDIR)$(PREFIX)/share/man/man3

clean:
	rm -rf $(OUT) .build .build-tsan
