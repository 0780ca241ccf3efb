// Counts executed AArch64 instructions by class: a TCG plugin for qemu-user 7.2 (plugin API version 1).
//
//   qemu-aarch64 -plugin count_plugin.so -d plugin PROGRAM
//
// writes to qemu's log (-D FILE) what the main thread has executed so far, one line at each "hint #0x7f" that it passes:
// "zoo-count DOT FMLA SIMD SIMD_MEMORY SCALAR". The runners pass one before and one after each inference, so that the
// difference of the two lines is that inference and nothing else: no start-up, no clock, no printing.
// Classes, by the encoding groups of the Arm Architecture Reference Manual (DDI 0487, C4.1):
//   dot          int8 dot products and matrix multiplies: [S|U|US|SU]DOT, [S|U|US]MMLA
//   fmla         vector FMLA and FMLS
//   simd         all other SIMD and floating point, SVE included
//   simd_memory  loads and stores of SIMD registers
//   scalar       everything else
// Counting is per translation block, when one starts (a mark splits its block): exact as long as no signal interrupts one.
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The part of qemu's plugin interface that is used here, declared as its documentation gives it.
typedef uint64_t qemu_plugin_id_t;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *),
                                                 enum qemu_plugin_cb_flags, void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned int, void *),
                                                   enum qemu_plugin_cb_flags, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_outs(const char *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { DOT, FMLA, SIMD, SIMD_MEMORY, SCALAR, CLASSES };
static const uint32_t MARK = 0xd5032fff;  // hint #0x7f

// Of the main thread, which alone writes them: with one thread it does all the work, and pools that wait do not disturb.
static uint64_t counts[CLASSES];

static bool is(uint32_t insn, uint32_t mask, uint32_t value) { return (insn & mask) == value; }

static int classify(uint32_t insn) {
  const uint32_t group = (insn >> 25) & 0xf;
  if ((group & 0x5) == 0x4) return (insn >> 26) & 1 ? SIMD_MEMORY : SCALAR;  // loads and stores; bit 26: SIMD registers
  if (group == 0x2) return SIMD;                                            // SVE
  if ((group & 0x7) != 0x7) return SCALAR;
  if (is(insn, 0x9f20fc00, 0x0e009400)                                           // SDOT, UDOT
      || is(insn, 0xbfe0fc00, 0x0e809c00)                                        // USDOT
      || is(insn, 0x9f00f400, 0x0f00e000)                                        // SDOT, UDOT by element
      || is(insn, 0xbfc0f400, 0x0f00f000) || is(insn, 0xbfc0f400, 0x0f80f000)    // SUDOT, USDOT by element
      || is(insn, 0xdfe0fc00, 0x4e80a400) || is(insn, 0xffe0fc00, 0x4e80ac00)) { // SMMLA, UMMLA; USMMLA
    return DOT;
  }
  if (is(insn, 0xbf20fc00, 0x0e20cc00)        // FMLA, FMLS: single and double
      || is(insn, 0xbf60fc00, 0x0e400c00)     // half
      || is(insn, 0xbf00b400, 0x0f001000)) {  // by element
    return FMLA;
  }
  return SIMD;
}

// A stretch of a block: from its start or from a mark, to the next mark or its end.
static void executed(unsigned int thread, void *stretch) {
  const uint32_t *of_stretch = stretch;
  if (thread != 0) return;
  for (int i = 0; i < CLASSES; ++i) counts[i] += of_stretch[i];
}

static void marked(unsigned int thread, void *next_stretch) {
  if (thread != 0) return;
  char line[160];
  snprintf(line, sizeof line, "zoo-count %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", counts[DOT],
           counts[FMLA], counts[SIMD], counts[SIMD_MEMORY], counts[SCALAR]);
  qemu_plugin_outs(line);
  executed(thread, next_stretch);
}

static uint32_t *new_stretch(void) {
  uint32_t *stretch = calloc(CLASSES, sizeof *stretch);  // lives as long as the translated code
  if (stretch == NULL) abort();
  return stretch;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  uint32_t *stretch = new_stretch();
  qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, stretch);
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); ++i) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
    ++stretch[classify(word)];
    if (word != MARK) continue;
    stretch = new_stretch();
    qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS, stretch);
  }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
  (void)info;
  (void)argc;
  (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
