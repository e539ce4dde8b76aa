// aligned.c: SSE moves that insist on 16 bytes, when the address is a guarded block's.
//
//   movaps %xmm0,(%rdi)     rdi = …fe8: an item of 24 bytes against a guard page
//      └─▶ SIGSEGV without an address ─▶ decode ─▶ the same move, byte by byte ─▶ go on
//
// malloc promises 16, an item on the right of its page has what its size is a multiple
// of. For what lies in it that is enough, but clang fills a fresh object of 24 bytes
// with one move of 16 and counts on the promise. The processor does not say where it
// was: the instruction does. Only moves of SSE are known; arithmetic with an operand in
// memory and vmovaps are not, and go to the program: `guard_align:16` is for those.
#define _GNU_SOURCE
#include <string.h>
#include <ucontext.h>

#include "debug.h"

static uintptr_t general_register(const mcontext_t *machine, unsigned number) {
  static const unsigned char place[16] = {
      REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (uintptr_t)machine->gregs[place[number]];
}

// Intel's manual, volume 2, 2.1: prefixes, 0F, operation, ModRM, SIB, displacement.
bool keg_debug_decode_aligned(const void *context, struct keg_aligned_move *move) {
  const mcontext_t *machine = &((const ucontext_t *)context)->uc_mcontext;
  const unsigned char *start = (const unsigned char *)machine->gregs[REG_RIP], *code = start;
  bool has_66 = *code == 0x66;
  if (has_66) code++;
  unsigned rex = 0;
  if ((*code & 0xf0) == 0x40) rex = *code++;
  if (*code++ != 0x0f) return false;
  unsigned operation = *code++;
  switch (operation) {
    case 0x28: move->is_store = false; break;                                // movaps, movapd
    case 0x29: case 0x2b: move->is_store = true; break;                      // and movntps
    case 0x6f: if (!has_66) return false; move->is_store = false; break;     // movdqa
    case 0x7f: case 0xe7: if (!has_66) return false; move->is_store = true; break;
    default: return false;
  }
  unsigned mode = *code >> 6, base = *code & 7;
  move->number = (*code >> 3 & 7) | (rex & 4) << 1;
  code++;
  if (mode == 3) return false;
  uintptr_t address = 0;
  bool is_relative = false;
  if (base == 4) {
    unsigned scale = *code >> 6, index = (*code >> 3 & 7) | (rex & 2) << 2;
    base = *code++ & 7;
    if (index != 4) address = general_register(machine, index) << scale;
    if (base == 5 && mode == 0)
      mode = 2;  // a displacement alone
    else
      address += general_register(machine, base | (rex & 1) << 3);
  } else if (base == 5 && mode == 0) {
    is_relative = true;
    mode = 2;
  } else {
    address = general_register(machine, base | (rex & 1) << 3);
  }
  if (mode == 1) {
    address += (uintptr_t)(intptr_t)(signed char)*code++;
  } else if (mode == 2) {
    int32_t displacement;
    memcpy(&displacement, code, sizeof displacement);
    address += (uintptr_t)(intptr_t)displacement;
    code += sizeof displacement;
  }
  move->length = (unsigned)(code - start);
  move->address = is_relative ? address + (uintptr_t)code : address;
  return true;
}

void keg_debug_do_aligned(void *context, const struct keg_aligned_move *move) {
  mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
  char *state = (char *)machine->fpregs;
  void *contents = &machine->fpregs->_xmm[move->number];
  if (move->is_store) {
    memcpy((void *)move->address, contents, 16);
  } else {
    memcpy(contents, (const void *)move->address, 16);
    // FP_XSTATE_MAGIC1: an XSAVE area follows, whose header says which parts count.
    uint32_t magic;
    memcpy(&magic, state + 464, sizeof magic);
    if (magic == 0x46505853) state[512] |= 2;
  }
  machine->gregs[REG_RIP] += move->length;
}
