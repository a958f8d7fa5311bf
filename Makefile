# SPDX-License-Identifier: MIT
# Targets: all (the default), check, check-full, check-numa, fuzz, soak, bench, demo, lint, format,
# install, deps, deps-test, clean.
# Settings: CC CXX CFLAGS LDFLAGS PREFIX DESTDIR BUILD; WERROR= (packagers: warnings do not stop
# the build), DEBUG=1 (invariants checked on every slow step), SANITIZE=address,undefined or thread,
# V=1 (whole command lines).

BUILD   ?= build
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
CFLAGS  ?= -O2 -g
WERROR  ?= -Werror
OBJCOPY ?= objcopy
Q       := $(if $(V),,@)
comma   := ,
STRESS_SECONDS ?= 5
VERSION := $(shell awk '/define HAK_VERSION_M|define HAK_VERSION_P/ { v = v s $$3; s = "." } \
                        END { print v }' include/hakmem.h)
SONAME  := libhakmem.so.$(firstword $(subst ., ,$(VERSION)))

# _GNU_SOURCE is empty, so that a file which defines it for itself says the same.
CPPFLAGS_ALL = -Iinclude -I. -MMD -MP $(if $(DEBUG),-DHAK_DEBUG=1) $(CPPFLAGS)
WARNINGS     = -Wall -Wextra -Wundef -Wshadow -Wconversion $(WERROR)
CODEGEN      = -fPIC -fvisibility=hidden -fno-plt -fno-semantic-interposition \
               -ftls-model=initial-exec -ffunction-sections -pthread \
               $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined \
               -fno-omit-frame-pointer)
CFLAGS_ALL   = $(CPPFLAGS_ALL) -D_GNU_SOURCE= -std=gnu17 $(WARNINGS) -Wstrict-prototypes \
               -Wmissing-prototypes -Wvla $(CODEGEN) $(CFLAGS)
CXXFLAGS_ALL = $(CPPFLAGS_ALL) -std=c++17 $(WARNINGS) $(CODEGEN) $(CFLAGS) $(CXXFLAGS)
LDFLAGS_ALL  = -pthread -Wl,-z,now -Wl,-z,relro -Wl,--as-needed \
               $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
# nodelete: a thread that used the library may exit after a dlclose; its destructor is in there.
SHARED       = -shared -Wl,-z,defs -Wl,-z,nodelete
LIBS         = -lnuma -lpthread

# Benchmarks that only call malloc and have an allocator preloaded: linked without the library.
BENCH_PLAIN := latency mixed_large phases random_mixed_plain server xthread
DPDK := $(if $(wildcard bench/dpdk.c),$(shell pkg-config --exists libdpdk 2>/dev/null && echo yes))

# What is built, read off the folders.
programs = $(addprefix $(BUILD)/,$(basename $(wildcard $(1))))
LIB_OBJ  := $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(filter-out alloc/preload%, \
            $(wildcard numa/*.c region/*.c alloc/*.c))))
PRE_OBJ  := $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard alloc/preload*.c)))
# For users: one object with only the public names. For tests, benchmarks and tools: all of them.
STATIC   := $(BUILD)/libhakmem.a
INSIDE   := $(BUILD)/inside.a
LIBRARY  := $(STATIC) $(BUILD)/libhakmem.so $(BUILD)/libhakmem_preload.so
STRESS   := $(call programs,tests/stress_*.c)
# Run in virtual machines with several nodes, by tests/numa.
GUESTS   := $(call programs,tests/vm_*.c)
TESTS_CC := $(call programs,tests/test_*.cc)
TESTS    := $(call programs,tests/test_*.c) $(TESTS_CC)
# A tool is tools/NAME.c and the parts tools/NAME_*.c that go with it.
TOOLS    := $(patsubst tools/%.c,$(BUILD)/%,$(foreach c,$(wildcard tools/*.c), \
            $(if $(findstring _,$(notdir $c)),,$c)))
EXAMPLES_CC := $(call programs,examples/*.cc)
EXAMPLES := $(call programs,examples/*.c) $(EXAMPLES_CC)
BENCH    := $(filter-out $(if $(DPDK),,$(BUILD)/bench/dpdk),$(call programs,bench/*.c))
# Linked with libFuzzer, which is clang's, in a build folder of their own: tests/fuzz/kit.sh.
FUZZERS  := $(call programs,tests/fuzz/fuzz_*.c)
SOAK     := $(call programs,tests/soak.c)
PLAIN    := $(addprefix $(BUILD)/bench/,$(BENCH_PLAIN))
PROGRAMS := $(STRESS) $(TESTS) $(GUESTS) $(SOAK) $(EXAMPLES) $(filter-out $(PLAIN),$(BENCH))
SANITIZED := $(foreach kind,asan tsan,$(STRESS:$(BUILD)/%=$(BUILD)/$(kind)/%))

.PHONY: all library programs check check-full check-numa sanitized bench demo lint install deps \
        deps-check deps-test need-deps stress fuzz fuzzers soak format clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:

all: library $(TOOLS)
library: $(LIBRARY)
programs: all $(TESTS) $(STRESS) $(GUESTS) $(SOAK) $(EXAMPLES)

# ---- the library -----------------------------------------------------------------------------

$(BUILD)/obj/%.o: %.c $(BUILD)/.flags | need-deps
	@mkdir -p $(@D); echo '  CC    $@'
	$(Q)$(CC) $(CFLAGS_ALL) $(CFLAGS_MORE) -c -o $@ $<

$(BUILD)/obj/%.o: %.S $(BUILD)/.flags | need-deps
	@mkdir -p $(@D); echo '  AS    $@'
	$(Q)$(CC) -c -o $@ $<

$(BUILD)/obj/%.o: %.cc $(BUILD)/.flags | need-deps
	@mkdir -p $(@D); echo '  CXX   $@'
	$(Q)$(CXX) $(CXXFLAGS_ALL) -c -o $@ $<

# Written anew only when what they hold changes: other flags rebuild everything, another list of
# sources the libraries.
$(BUILD)/.flags: STAMP = $(CC) $(CXX) $(CFLAGS_ALL) $(CXXFLAGS_ALL) $(LDFLAGS_ALL) $(SHARED)
$(BUILD)/.sources: STAMP = $(LIB_OBJ) $(PRE_OBJ)
$(BUILD)/.flags $(BUILD)/.sources: FORCE
	@mkdir -p $(@D)
	@echo '$(STAMP)' | cmp -s - $@ || echo '$(STAMP)' >$@

$(INSIDE): $(LIB_OBJ) $(BUILD)/.sources
	@rm -f $@; echo '  AR    $@'
	$(Q)$(AR) rcs $@ $(LIB_OBJ)

$(STATIC): $(LIB_OBJ) $(BUILD)/.sources
	@rm -f $@; echo '  AR    $@'
	$(Q)$(LD) -r -o $(BUILD)/obj/hakmem.o $(LIB_OBJ)
	$(Q)$(OBJCOPY) --localize-hidden $(BUILD)/obj/hakmem.o
	$(Q)$(AR) rcs $@ $(BUILD)/obj/hakmem.o

$(BUILD)/libhakmem.so: $(LIB_OBJ) $(BUILD)/.sources
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS_ALL) $(SHARED) -Wl,-soname,$(SONAME) -o $@ $(LIB_OBJ) $(LIBS)
	@ln -sf libhakmem.so $(BUILD)/$(SONAME)

$(BUILD)/libhakmem_preload.so: $(LIB_OBJ) $(PRE_OBJ) $(BUILD)/.sources
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS_ALL) $(SHARED) -o $@ $(LIB_OBJ) $(PRE_OBJ) $(LIBS)

# Its functions call each other by name, so that a program's own come in between.
$(BUILD)/obj/alloc/preload_new.o: CFLAGS_MORE = -fsemantic-interposition

# ---- programs --------------------------------------------------------------------------------

LINK = $(CC)
$(TESTS_CC) $(EXAMPLES_CC): LINK = $(CXX)
$(BUILD)/bench/dpdk: LIBS_MORE = $(shell pkg-config --libs libdpdk)
$(BUILD)/obj/bench/dpdk.o: CFLAGS_MORE = $(subst -I,-isystem ,$(shell pkg-config --cflags libdpdk))

$(PROGRAMS): $(BUILD)/%: $(BUILD)/obj/%.o $(INSIDE)
	@mkdir -p $(@D); echo '  LINK  $@'
	$(Q)$(LINK) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_MORE) $(LIBS) -lm

$(FUZZERS): $(BUILD)/%: $(BUILD)/obj/%.o $(INSIDE)
	@mkdir -p $(@D); echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS)

.SECONDEXPANSION:
$(TOOLS): $(BUILD)/%: $(BUILD)/obj/tools/%.o \
          $$(addprefix $(BUILD)/obj/,$$(addsuffix .o,$$(basename $$(wildcard tools/$$*_*.c)))) \
          $(INSIDE)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) -lcjson -lm

$(PLAIN): $(BUILD)/%: $(BUILD)/obj/%.o
	@mkdir -p $(@D); echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lm

# Every atomic step a point where a seed decides who goes on; tests/sched/build.sh asks for it, with
# the flags that it takes.
$(BUILD)/sched: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/sched/*.c)) \
                $(BUILD)/obj/tests/sched/switch.o $(INSIDE)
	@echo '  LINK  $@'
	$(Q)$(CC) $(LDFLAGS_ALL) $(addprefix -Wl$(comma)--wrap=,sched_yield os_yield os_coarse_ns \
	    os_discard topology_current_node pthread_key_create) -o $@ $^ $(LIBS)

# ---- what to do with them --------------------------------------------------------------------

# As many jobs as processors, unless this make was itself given a number.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
SUBMAKE = +@$(MAKE) --no-print-directory $(JOBS)
export BUILD CC CXX CPPFLAGS

check: deps-check
	$(SUBMAKE) programs sanitized
	@STRESS_SECONDS=$(STRESS_SECONDS) tests/run.sh $(TESTS) \
	    $(wildcard tests/test_*.sh) $(STRESS) $(SANITIZED)

check-full: deps-check
	$(SUBMAKE) programs sanitized bench
	@STRESS_SECONDS=30 TEST_TIMEOUT=900 tests/run.sh $(STRESS) $(SANITIZED) \
	    $(wildcard tests/full_*.sh)

# On machines with several nodes, which QEMU makes up.
check-numa: deps-check
	$(SUBMAKE) programs
	@tests/full_numa.sh

# As long as one likes: make fuzz TARGET=api SECONDS=600 JOBS=2; docs/fuzz.md.
fuzz:
	+@FUZZ_TARGET='$(TARGET)' FUZZ_SECONDS='$(SECONDS)' \
	    FUZZ_JOBS='$(if $(filter command,$(origin JOBS)),$(JOBS))' tests/fuzz/run.sh

fuzzers: $(FUZZERS)

# make soak MINUTES=10 SEED=n; docs/fuzz.md.
soak: $(SOAK)
	@MINUTES='$(MINUTES)' $(SOAK)

sanitized:
	$(SUBMAKE) BUILD=$(BUILD)/asan SANITIZE=address,undefined CFLAGS='-O1 -g' stress
	$(SUBMAKE) BUILD=$(BUILD)/tsan SANITIZE=thread CFLAGS='-O1 -g' stress

stress: $(STRESS)

bench: library $(BENCH)
	$(if $(wildcard bench/dpdk.c),$(if $(DPDK),,@echo \
	    'bench/dpdk is left out: no libdpdk here (apt-get install libdpdk-dev)'))

demo: deps
	$(SUBMAKE) all
	@$(BUILD)/demo

lint:
	@tools/deps.sh need-lint
	@tools/lint.sh
format:
	@tools/lint.sh format

install: all
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 $(wildcard include/*.h include/*.hpp) $(DESTDIR)$(PREFIX)/include
	install -m 644 $(STATIC) $(DESTDIR)$(LIBDIR)
	install -m 755 $(BUILD)/libhakmem.so $(DESTDIR)$(LIBDIR)/libhakmem.so.$(VERSION)
	ln -sf libhakmem.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libhakmem.so
	install -m 755 $(BUILD)/libhakmem_preload.so $(DESTDIR)$(LIBDIR)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BUILD)/hakmem $(DESTDIR)$(PREFIX)/bin
	@printf '%s\n' 'Name: hakmem' 'Version: $(VERSION)' \
	    'Description: memory allocator in a region set aside before the work starts' \
	    'Cflags: -I$(PREFIX)/include' 'Libs: -L$(LIBDIR) -lhakmem' 'Libs.private: $(LIBS)' \
	    >$(DESTDIR)$(LIBDIR)/pkgconfig/hakmem.pc

need-deps:
	@tools/deps.sh need
deps:
	@tools/deps.sh build
deps-check:
	@tools/deps.sh check
deps-test:
	@tools/deps.sh test

clean:
	rm -rf $(BUILD)

-include $(wildcard $(BUILD)/obj/*/*.d $(BUILD)/obj/*/*/*.d)
