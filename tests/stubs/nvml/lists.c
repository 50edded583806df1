/* What comes in lists or through MIG: memory, processes, samples, fields, instances, GPM, events. */
#include "scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct instance {
    unsigned gi, ci, slices;
    unsigned long long total, used;
    char uuid[64], name[96];
};

/* "mig INDEX GI CI SLICES TOTAL USED UUID NAME" */
static int instance_of(int gpu, int index, struct instance *to) {
    char text[TEXT];
    int at;
    for (int i = 0; line(gpu, "mig", i, text); i++) {
        if (sscanf(text, "%d %u %u %u %llu %llu %63s %95[^\n]", &at, &to->gi, &to->ci, &to->slices, &to->total,
                   &to->used, to->uuid, to->name) == 8 && at == index) return SUCCESS;
    }
    return NOT_FOUND;
}
static int text_to(const char *text, char *to, unsigned size) {
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}
API int nvmlDeviceGetName(struct device *d, char *to, unsigned size) {
    struct instance part;
    DEVICE(d);
    if (d->mig < 0) return text_of(d->gpu, "name", to, size);
    return instance_of(d->gpu, d->mig, &part) ? NOT_FOUND : text_to(part.name, to, size);
}
API int nvmlDeviceGetUUID(struct device *d, char *to, unsigned size) {
    struct instance part;
    DEVICE(d);
    if (d->mig < 0) return text_of(d->gpu, "uuid", to, size);
    return instance_of(d->gpu, d->mig, &part) ? NOT_FOUND : text_to(part.uuid, to, size);
}

/* --- memory */
static int memory_of(struct device *d, uint64_t *total, uint64_t *reserved, uint64_t *used) {
    struct instance part;
    if (d->mig >= 0) {
        if (instance_of(d->gpu, d->mig, &part)) return NOT_FOUND;
        *total = part.total, *reserved = 0, *used = part.used;
        return SUCCESS;
    }
    if (u64_of(d->gpu, "memory_reserved", reserved)) *reserved = 0;
    int told = u64_of(d->gpu, "memory_total", total);
    return told ? told : u64_of(d->gpu, "memory_used", used);
}
API int nvmlDeviceGetMemoryInfo(struct device *d, uint64_t to[3]) {
    uint64_t reserved, used;
    DEVICE(d);
    int told = memory_of(d, &to[0], &reserved, &used);
    if (told) return told;
    to[2] = used + reserved; /* the first version counts what the driver keeps as used */
    to[1] = to[0] - to[2];
    return SUCCESS;
}
struct memory {
    unsigned version;
    uint64_t total, reserved, free, used;
};
API int nvmlDeviceGetMemoryInfo_v2(struct device *d, struct memory *to) {
    DEVICE(d);
    if (to->version != 0x2000028) return VERSION_MISMATCH;
    int told = memory_of(d, &to->total, &to->reserved, &to->used);
    if (!told) to->free = to->total - to->reserved - to->used;
    return told;
}
API int nvmlDeviceGetBAR1MemoryInfo(struct device *d, uint64_t to[3]) {
    DEVICE(d);
    int told = u64_of(d->gpu, "bar1_total", &to[0]);
    if (!told) told = u64_of(d->gpu, "bar1_used", &to[2]);
    if (!told) to[1] = to[0] - to[2];
    return told;
}

/* --- processes: "process PID KIND BYTES|na [GI CI]" */
struct process {
    unsigned pid;
    uint64_t memory;
    unsigned gi, ci;
};
static int processes_of(struct device *d, const char *kind, unsigned *count, struct process *to) {
    char text[TEXT], is[16], memory[32];
    struct instance part;
    struct process p;
    unsigned found = 0, room = to ? *count : 0;
    if (d->mig >= 0 && instance_of(d->gpu, d->mig, &part)) return NOT_FOUND;
    for (int i = 0; line(d->gpu, "process", i, text); i++) {
        p.gi = p.ci = 0xffffffff;
        if (sscanf(text, "%u %15s %31s %u %u", &p.pid, is, memory, &p.gi, &p.ci) < 3 || strcmp(is, kind)) continue;
        if (d->mig >= 0 && (p.gi != part.gi || p.ci != part.ci)) continue;
        p.memory = strcmp(memory, "na") ? strtoull(memory, NULL, 10) : UINT64_MAX;
        if (found < room) to[found] = p;
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}
#define PROCESSES(name, kind) \
    API int name(struct device *d, unsigned *count, struct process *to) { \
        char unsupported[TEXT]; \
        DEVICE(d); \
        if (line(d->gpu, "no_processes", 0, unsupported)) return NOT_SUPPORTED; \
        return processes_of(d, kind, count, to); \
    }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")
API int nvmlDeviceGetRunningProcessDetailList(struct device *d, unsigned *to) {
    DEVICE(d);
    return to[0] != 0x1000018 ? VERSION_MISMATCH : NOT_SUPPORTED;
}

/* --- samples of processes: "sample PID SM MEMORY ENCODER DECODER [AGE in seconds, or @MICROSECONDS]" */
struct sample {
    unsigned pid;
    uint64_t time;
    unsigned sm, memory, encoder, decoder;
};
static int next_sample(int gpu, int *i, uint64_t after, struct sample *s) {
    char text[TEXT], age[32];
    while (line(gpu, "sample", (*i)++, text)) {
        strcpy(age, "0");
        if (sscanf(text, "%u %u %u %u %u %31s", &s->pid, &s->sm, &s->memory, &s->encoder, &s->decoder, age) < 5) continue;
        s->time = age[0] == '@' ? strtoull(age + 1, NULL, 10) : now_us() - (uint64_t)(atof(age) * 1e6);
        if (s->time > after) return 1;
    }
    return 0;
}
static int samples_shown(struct device *d) {
    char text[TEXT];
    return d->mig < 0 && !line(d->gpu, "no_samples", 0, text);
}
API int nvmlDeviceGetProcessUtilization(struct device *d, struct sample *to, unsigned *count, uint64_t after) {
    struct sample s;
    unsigned found = 0, room = to ? *count : 0;
    DEVICE(d);
    if (!samples_shown(d)) return NOT_SUPPORTED;
    for (int i = 0; next_sample(d->gpu, &i, after, &s); found++) {
        if (found < room) to[found] = s;
    }
    *count = found;
    if (!found) return NOT_FOUND;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}
struct wide_sample {
    uint64_t time;
    unsigned pid, sm, memory, encoder, decoder, jpeg, ofa;
};
struct wide_samples {
    unsigned version, count;
    uint64_t after;
    struct wide_sample *to;
};
API int nvmlDeviceGetProcessesUtilizationInfo(struct device *d, struct wide_samples *list) {
    struct sample s;
    unsigned found = 0, room = list->to ? list->count : 0;
    DEVICE(d);
    if (list->version != 0x1000018) return VERSION_MISMATCH;
    if (!samples_shown(d)) return NOT_SUPPORTED;
    for (int i = 0; next_sample(d->gpu, &i, list->after, &s); found++) {
        if (found < room) list->to[found] = (struct wide_sample){s.time, s.pid, s.sm, s.memory, s.encoder, s.decoder, 0, 0};
    }
    list->count = found;
    if (!found) return NOT_FOUND;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

/* --- samples of the device: "sampled TYPE VALUE [AGE]", unsigned */
API int nvmlDeviceGetSamples(struct device *d, int type, uint64_t after, int *value_type, unsigned *count, uint64_t *to) {
    char text[TEXT];
    unsigned found = 0, any = 0, room = to ? *count : 0, value;
    int is;
    DEVICE(d);
    *value_type = 1;
    for (int i = 0; line(d->gpu, "sampled", i, text); i++) {
        double age = 0;
        if (sscanf(text, "%d %u %lf", &is, &value, &age) < 2 || is != type) continue;
        uint64_t time = now_us() - (uint64_t)(age * 1e6);
        any = 1;
        if (time <= after) continue;
        if (found < room) to[2 * found] = time, to[2 * found + 1] = value;
        found++;
    }
    *count = to || !any ? found : found + 20; /* the probe tells the size of the buffer, which is more */
    return !any ? NOT_SUPPORTED : !found ? NOT_FOUND : SUCCESS;
}

/* --- fields: "field ID SCOPE TYPE VALUE" */
struct field {
    unsigned id, scope;
    int64_t time, latency;
    unsigned type, told;
    union {
        double d;
        unsigned u;
        int i;
        unsigned long long ull;
        unsigned short us;
    } value;
};
API int nvmlDeviceGetFieldValues(struct device *d, int count, struct field *to) {
    char text[TEXT], value[64];
    unsigned id, scope, type;
    DEVICE(d);
    for (struct field *f = to; f < to + count; f++) {
        f->told = NOT_SUPPORTED;
        f->time = (int64_t)now_us();
        f->latency = 0;
        for (int i = 0; line(d->gpu, "field", i, text); i++) {
            if (sscanf(text, "%u %u %u %63s", &id, &scope, &type, value) != 4 || id != f->id || scope != f->scope) continue;
            double found = parsed(value);
            f->told = SUCCESS;
            f->type = type;
            f->value.ull = 0;
            if (type == 0) f->value.d = found;
            else if (type == 1) f->value.u = (unsigned)(uint64_t)found;
            else if (type == 5) f->value.i = (int)found;
            else if (type == 6) f->value.us = (unsigned short)found;
            else f->value.ull = found < 0 ? (unsigned long long)(long long)found : (unsigned long long)found;
            break;
        }
    }
    return SUCCESS;
}
static int pages(struct device *d, unsigned cause, unsigned *count, uint64_t *to, uint64_t *times) {
    char key[40];
    unsigned found, room = to ? *count : 0;
    snprintf(key, sizeof key, "retired_pages_%u", cause);
    int told = u32_of(d->gpu, key, &found);
    if (told) return told;
    *count = found;
    if (found > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++) {
        to[i] = 0x1000u * (i + 1);
        if (times) times[i] = 0;
    }
    return SUCCESS;
}
API int nvmlDeviceGetRetiredPages(struct device *d, unsigned cause, unsigned *count, uint64_t *to) { DEVICE(d); return pages(d, cause, count, to, NULL); }
API int nvmlDeviceGetRetiredPages_v2(struct device *d, unsigned cause, unsigned *count, uint64_t *to, uint64_t *times) { DEVICE(d); return pages(d, cause, count, to, times); }
