/* The scenario: a text file, read again whenever it was replaced. One line, one fact; see tests/gpu/nvml_stub.py. */
#include "scenario.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { HANG_FOREVER = -1 };

struct fact {
    char key[40];
    char text[TEXT];
};

struct rule {
    char verb, function[64]; /* r: return, h: hang, c: crash */
    int gpu, code, deaf;
    double seconds;
};

struct facts {
    struct fact *of;
    int count, room;
};

int started;
static struct device devices[GPUS][PARTS + 1];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct facts facts[GPUS + 2]; /* of each GPU, of all GPUs, of the machine */
static struct rule rules[256];
static int rule_count;
static struct stat seen;
static double start;

uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

struct device *device_of(int gpu, int mig) {
    struct device *found = &devices[gpu][mig + 1];
    found->gpu = gpu;
    found->mig = mig;
    return found;
}

static int gpu_named(const char *word) {
    return word[0] == '*' ? GPUS : atoi(word) % GPUS;
}

static void add_fact(int gpu, const char *rest) {
    struct facts *f = &facts[gpu];
    int used = 0;
    if (f->count == f->room) {
        f->room = f->room ? 2 * f->room : 64;
        f->of = realloc(f->of, (size_t)f->room * sizeof *f->of);
        if (!f->of) abort();
    }
    struct fact *fact = &f->of[f->count];
    memset(fact, 0, sizeof *fact);
    if (sscanf(rest, " %39s %n", fact->key, &used) != 1) return;
    strncpy(fact->text, rest + used, TEXT - 1);
    f->count++;
}

static void add_rule(const char *row) {
    char verb[16], gpu[16], last[32] = "", deaf[16] = "";
    if (rule_count == (int)(sizeof rules / sizeof *rules)) abort();
    struct rule *r = &rules[rule_count];
    if (sscanf(row, "%15s %63s gpu %15s %31s %15s", verb, r->function, gpu, last, deaf) < 3) return;
    r->verb = verb[0];
    r->gpu = gpu_named(gpu);
    r->code = atoi(last);
    r->seconds = last[0] && strcmp(last, "deaf") ? atof(last) : HANG_FOREVER;
    r->deaf = !strcmp(last, "deaf") || !strcmp(deaf, "deaf");
    rule_count++;
}

static void read_scenario(void) { /* with the lock */
    const char *name = getenv("INFERMETER_NVML_SCENARIO");
    struct stat is;
    char row[512], gpu[16];
    int used;
    if (!name || stat(name, &is)) return;
    if (is.st_ino == seen.st_ino && is.st_mtim.tv_sec == seen.st_mtim.tv_sec && is.st_size == seen.st_size
        && is.st_mtim.tv_nsec == seen.st_mtim.tv_nsec) return;
    FILE *file = fopen(name, "r");
    if (!file) return;
    seen = is;
    for (int i = 0; i < GPUS + 2; i++) facts[i].count = 0;
    rule_count = 0;
    start = 0;
    while (fgets(row, sizeof row, file)) {
        row[strcspn(row, "\n")] = 0;
        if (!row[0] || row[0] == '#') continue;
        if (!strncmp(row, "return ", 7) || !strncmp(row, "hang ", 5) || !strncmp(row, "crash ", 6)) add_rule(row);
        else if (sscanf(row, "start %lf", &start) == 1) continue;
        else if (!strncmp(row, "gpu ", 4) && sscanf(row + 4, "%15s %n", gpu, &used) == 1) add_fact(gpu_named(gpu), row + 4 + used);
        else add_fact(GPUS + 1, row);
    }
    fclose(file);
    if (start <= 0) start = (double)now_us() / 1e6;
}

static const char *found_line(int gpu, const char *key, int nth) { /* with the lock */
    int groups[2] = {gpu < 0 ? GPUS + 1 : gpu, GPUS};
    for (int g = 0; g < (gpu < 0 ? 1 : 2); g++) {
        int found = 0;
        for (int i = 0; i < facts[groups[g]].count; i++) {
            if (strcmp(facts[groups[g]].of[i].key, key)) continue;
            if (found++ == nth) return facts[groups[g]].of[i].text;
        }
        if (found) return NULL;
    }
    return NULL;
}

int line(int gpu, const char *key, int nth, char text[TEXT]) {
    pthread_mutex_lock(&lock);
    const char *found = found_line(gpu, key, nth);
    if (found) memcpy(text, found, TEXT);
    pthread_mutex_unlock(&lock);
    return found != NULL;
}

double parsed(const char *text) {
    char *rest;
    double base = strtod(text, &rest);
    return *rest == '+' ? base + atof(rest + 1) * ((double)now_us() / 1e6 - start) : base;
}

int number(int gpu, const char *key, double *value) {
    char text[TEXT];
    if (!line(gpu, key, 0, text)) return NOT_SUPPORTED;
    *value = parsed(text);
    return SUCCESS;
}

int u32_of(int gpu, const char *key, unsigned *to) {
    double value;
    int told = number(gpu, key, &value);
    if (!told) *to = (unsigned)(int64_t)value;
    return told;
}

int u64_of(int gpu, const char *key, uint64_t *to) {
    double value;
    int told = number(gpu, key, &value);
    if (!told) *to = (uint64_t)value;
    return told;
}

int text_of(int gpu, const char *key, char *to, unsigned size) {
    char text[TEXT];
    if (!line(gpu, key, 0, text)) return NOT_SUPPORTED;
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

int gpus(void) {
    double count;
    return number(EVERY, "gpus", &count) ? 0 : (int)count;
}

static struct rule *rule_for(char verb, const char *function, int gpu) { /* with the lock */
    for (int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        if (r->verb == verb && (r->gpu == GPUS || r->gpu == gpu)
            && (!strcmp(r->function, "*") || !strcmp(r->function, function))) return r;
    }
    return NULL;
}

/* Sleeps without the lock, until the time is over or the scenario no longer says so: a test can let go what hangs. */
static void hang(const char *function, int gpu) {
    const struct timespec nap = {0, 10000000};
    uint64_t since = now_us();
    for (;;) {
        pthread_mutex_lock(&lock);
        read_scenario();
        struct rule *r = rule_for('h', function, gpu);
        int over = !r || (r->seconds >= 0 && (double)(now_us() - since) / 1e6 >= r->seconds);
        int deaf = r && r->deaf;
        pthread_mutex_unlock(&lock);
        if (over) return;
        if (deaf) signal(SIGTERM, SIG_IGN);
        nanosleep(&nap, NULL);
    }
}

int enter(const char *function, int gpu) {
    pthread_mutex_lock(&lock);
    read_scenario();
    struct rule *crash = rule_for('c', function, gpu), *told = rule_for('r', function, gpu);
    int hangs = rule_for('h', function, gpu) != NULL;
    int code = told ? told->code : SUCCESS, fatal = crash ? (crash->code ? crash->code : SIGABRT) : 0;
    const char *lost = gpu >= 0 ? found_line(gpu, "lost", 0) : NULL;
    int gone = lost && lost[0] != '0';
    pthread_mutex_unlock(&lock);
    if (hangs) hang(function, gpu);
    if (fatal) {
        signal(fatal, SIG_DFL);
        raise(fatal);
    }
    if (!started && strcmp(function, "nvmlInitWithFlags")) return UNINITIALIZED;
    if (gone) return GPU_IS_LOST;
    return code;
}

uint64_t last_xid(void) {
    char text[TEXT];
    unsigned long long sequence, last = 0;
    for (int i = 0; line(EVERY, "xid", i, text); i++) {
        if (sscanf(text, "%llu", &sequence) == 1 && sequence > last) last = sequence;
    }
    return last;
}

int next_xid(uint64_t after, const char watched[GPUS], uint64_t *sequence, int *gpu, unsigned *code) {
    char text[TEXT];
    unsigned long long at;
    int found = 0, which;
    unsigned number_of;
    for (int i = 0; line(EVERY, "xid", i, text); i++) {
        if (sscanf(text, "%llu gpu %d %u", &at, &which, &number_of) != 3 || at <= after) continue;
        if (which < 0 || which >= GPUS || !watched[which] || (found && at >= *sequence)) continue;
        found = 1;
        *sequence = at;
        *gpu = which;
        *code = number_of;
    }
    return found;
}
