// fault_stack.h: the stack on which a fault is looked at (fault_stack.c).
#ifndef KEG_FAULT_STACK_H
#define KEG_FAULT_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "debug.h"

/// Waits for other threads. False: this thread has it already.
extern bool keg_fault_stack_lock(void) KEG_DEBUG_HIDDEN;
extern void keg_fault_stack_unlock(void) KEG_DEBUG_HIDDEN;
/// Calls `body` with the arguments before it, on that stack, which the caller has locked.
extern bool keg_look(uintptr_t address, int is_write, void *context,
                     bool (*body)(uintptr_t, int, void *)) KEG_DEBUG_HIDDEN;
extern bool keg_is_on_fault_stack(uintptr_t address) KEG_DEBUG_HIDDEN;
/// One line on standard error, for a fault that cannot be looked at.
extern void keg_say_that_nobody_looks(uintptr_t address) KEG_DEBUG_HIDDEN;

#endif
