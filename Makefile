# kegmalloc: the embedded build of the shared libraries, and the verbs.
#
#   make          libraries, command, header, pkg-config file and man pages in out/
#   make demo     builds, and runs a real program under the allocator
#   make test     every test            make check   static checks
#   make bench    the race              make install PREFIX=/usr/local
#
# Package.swift builds the same sources as ordinary Swift for the tests and the
# command. Here each layer becomes an Embedded Swift module, lowest first; only the
# top one is compiled to an object, and everything below is inlined into it.

OUT      ?= out
BUILD    := $(OUT)/build
PREFIX   ?= /usr/local
VERSION  := 0.1.0

SWIFTC   ?= swiftc
SWIFT_BIN := $(dir $(realpath $(shell command -v $(SWIFTC))))
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
  $(OPTIMISE) -no-allocations -Xfrontend -function-sections \
  -swift-version 6 -package-name keg -g -Xcc -ftls-model=initial-exec -Xcc -fPIC \
  -Xcc -fvisibility=hidden -I shim/Platform/include

CFLAGS := -O2 -g -fPIC -std=gnu11 -Wall -Wextra -Werror -fno-builtin-malloc \
  -ftls-model=initial-exec -fvisibility=hidden -ffunction-sections \
  -fno-omit-frame-pointer -I shim/Platform/include
LDFLAGS := -shared -fuse-ld=lld -Wl,--gc-sections,-z,now,-z,relro,-z,nodelete \
  -Wl,--build-id=sha1,--eh-frame-hdr,-soname,libkegmalloc.so.1 \
  -Wl,-Bsymbolic-functions -Wl,--version-script=shim/exports.map \
  -Wl,-z,undefs -nostdlib

# Names of the C and C++ libraries for functions of ours: no jump in between.
ALIASES := malloc=keg_malloc free=keg_free calloc=keg_calloc realloc=keg_realloc \
  reallocarray=keg_reallocarray posix_memalign=keg_posix_memalign \
  aligned_alloc=keg_aligned_alloc memalign=keg_aligned_alloc valloc=keg_valloc \
  pvalloc=keg_pvalloc malloc_usable_size=keg_usable_size malloc_trim=keg_trim \
  cfree=keg_free free_sized=keg_free free_aligned_sized=keg_free \
  _Znwm=keg_new _Znam=keg_new_array _ZdlPv=keg_free _ZdaPv=keg_free \
  _ZdlPvm=keg_free _ZdaPvm=keg_free _ZdlPvRKSt9nothrow_t=keg_free \
  _ZdaPvRKSt9nothrow_t=keg_free _ZdlPvSt11align_val_t=keg_free \
  _ZdaPvSt11align_val_t=keg_free _ZdlPvSt11align_val_tRKSt9nothrow_t=keg_free \
  _ZdaPvSt11align_val_tRKSt9nothrow_t=keg_free _ZdlPvmSt11align_val_t=keg_free \
  _ZdaPvmSt11align_val_t=keg_free
LDFLAGS += $(foreach alias,$(ALIASES),-Wl,--defsym=$(alias))

LAYERS  := Base Pages Vmem Keg SizeClass Zone Stats Malloc
DIR     := $(BUILD)/$(VARIANT)
MODULES := $(LAYERS:%=$(DIR)/%.swiftmodule)
C_FILES := $(wildcard shim/Platform/*.c shim/Exports/*.c)
OBJECTS := $(C_FILES:shim/%.c=$(DIR)/%.o) $(DIR)/Malloc.o
HEADERS := $(wildcard shim/Platform/include/*)
LIBRARY := $(DIR)/libkegmalloc.so

.PHONY: all library
all: library

library: $(OUT)/lib/libkegmalloc.so

$(OUT)/lib/libkegmalloc.so: $(LIBRARY)
	@mkdir -p $(@D)
	$(OBJCOPY) --only-keep-debug $< $(@D)/libkegmalloc.so.debug
	$(OBJCOPY) --strip-debug --add-gnu-debuglink=$(@D)/libkegmalloc.so.debug $< $@
	ln -sf libkegmalloc.so $(@D)/libkegmalloc.so.1

$(LIBRARY): $(OBJECTS) shim/exports.map
	$(CLANG) $(LDFLAGS) -o $@ $(OBJECTS) -lc

# exports.map alone decides what these export.
$(DIR)/Exports/%.o: CFLAGS += -fvisibility=default

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

$(DIR)/Malloc.o: $(wildcard Sources/Malloc/*.swift) $(filter-out $(DIR)/Malloc.swiftmodule,$(MODULES))
	$(SWIFTC) $(SWIFTFLAGS) -I $(DIR) -c -module-name Malloc -o $@ $(filter Sources/Malloc/%,$^)

.PHONY: clean
clean:
	rm -rf $(OUT) .build
