/* What the files of the stub share: return codes, the scenario, and how every call begins. */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <stddef.h>
#include <stdint.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    TIMED_OUT = 10, GPU_IS_LOST = 15, VERSION_MISMATCH = 25,
    GPUS = 64, PARTS = 8, TEXT = 160, EVERY = -1,
};

/* A handle points to one: a GPU, or an instance of MIG on it; mig is -1 for the GPU itself. */
struct device {
    int gpu, mig;
};

extern int started;
struct device *device_of(int gpu, int mig);
int enter(const char *function, int gpu);
int gpus(void);
uint64_t now_us(void);

/* The nth line "gpu N key ...": its text after the key; 0 if there is none. A line of "gpu *" serves all GPUs. */
int line(int gpu, const char *key, int nth, char text[TEXT]);
/* A number of the machine or a GPU, "base" or "base+rate" with a rate per second since the scenario's start. */
int number(int gpu, const char *key, double *value);
double parsed(const char *text);
int text_of(int gpu, const char *key, char *to, unsigned size);
int u32_of(int gpu, const char *key, unsigned *to);
int u64_of(int gpu, const char *key, uint64_t *to);
int next_xid(uint64_t after, const char watched[GPUS], uint64_t *sequence, int *gpu, unsigned *code);
uint64_t last_xid(void);

#define API __attribute__((visibility("default")))
#define ENTER(gpu) do { int told = enter(__func__, gpu); if (told) return told; } while (0)
#define DEVICE(d) do { if (!(d)) return started ? INVALID_ARGUMENT : UNINITIALIZED; ENTER((d)->gpu); } while (0)
#endif
