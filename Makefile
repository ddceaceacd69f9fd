# Builds and installs by the names that packagers know. Development has ci/.
#
#   make                     the plugin, the command, manual pages, completions
#   make install             all of it; or install-plugin (every compute node),
#                            install-inquest (the command and its daemons),
#                            install-dashboards (for Grafana and Prometheus)
#   make uninstall           what install has put there; settings and data stay
#
# Starts nothing, enables nothing, makes no account; install says what is left to do.
# A file goes to its place by rename, so an upgrade is safe while jobs run: their
# steps keep the plugin that they have mapped.

DESTDIR =
prefix = /usr/local
# Slurm's and systemd's own, whatever the prefix.
sysconfdir = /etc
bindir = $(prefix)/bin
datadir = $(prefix)/share
mandir = $(datadir)/man
# One directory for the plugin on every distribution: plugstack names it by its
# path, and it serves every release of Slurm, so it is not of any one's PluginDir.
plugindir = $(prefix)/lib/slurm
# systemd reads these below /usr and /usr/local alike, and below no other prefix.
systemd = $(if $(filter /usr /usr/local,$(prefix)),$(prefix)/lib,$(sysconfdir))
unitdir = $(systemd)/systemd/system
sysusersdir = $(systemd)/sysusers.d
tmpfilesdir = $(systemd)/tmpfiles.d

CARGO = cargo
CARGO_FLAGS = --locked
TARGET ?= $(or $(CARGO_TARGET_DIR),target)

so = $(plugindir)/spank_inquest.so
job_so = $(plugindir)/spank_inquest_job.so
plugstack = $(sysconfdir)/slurm/plugstack.conf.d
units = agent collect serve

# $(call put,MODE,FILE,PLACE): never a half-written file under its final name.
put = install -D -m $(1) $(2) $(DESTDIR)$(3).new && mv -f $(DESTDIR)$(3).new $(DESTDIR)$(3) && echo $(DESTDIR)$(3)
# $(call put_edited,MODE,FILE,PLACE,SCRIPT): the same through sed.
put_edited = install -d $(dir $(DESTDIR)$(3)) && sed '$(4)' $(2) >$(DESTDIR)$(3).new && \
	chmod $(1) $(DESTDIR)$(3).new && mv -f $(DESTDIR)$(3).new $(DESTDIR)$(3) && echo $(DESTDIR)$(3)
# $(call unless_there,PLACE,COMMAND): a site's settings stay as they are.
unless_there = if [ ! -e $(DESTDIR)$(1) ]; then $(2); \
	else echo "$(DESTDIR)$(1) is there already and stays as it is"; fi

.PHONY: all plugin inquest install install-plugin install-inquest install-dashboards uninstall

all: plugin inquest

plugin:
	$(CARGO) build $(CARGO_FLAGS) --target-dir $(TARGET) --profile plugin -p spank-inquest -p spank-inquest-job

inquest:
	$(CARGO) build $(CARGO_FLAGS) --target-dir $(TARGET) --release -p inquest
	rm -rf $(TARGET)/share
	mkdir -p $(TARGET)/share/completions
	$(TARGET)/release/inquest man $(TARGET)/share/man
	for shell in bash zsh fish; do \
	  $(TARGET)/release/inquest completions $$shell >$(TARGET)/share/completions/$$shell || exit 1; \
	done

install: install-plugin install-inquest install-dashboards

install-plugin:
	@$(call put,644,packaging/sysusers.d/inquest.conf,$(sysusersdir)/inquest-journal.conf)
	@$(call put,644,packaging/tmpfiles.d/inquest-journal.conf,$(tmpfilesdir)/inquest-journal.conf)
	@$(call put,644,packaging/man/spank_inquest.8,$(mandir)/man8/spank_inquest.8)
	@$(call put,755,$(TARGET)/plugin/libspank_inquest.so,$(so))
	@$(call put,755,$(TARGET)/plugin/libspank_inquest_job.so,$(job_so))
	@# Last, when everything that it names is there.
	@$(call unless_there,$(plugstack)/inquest.conf,\
	  $(call put_edited,644,packaging/plugstack.conf.d/inquest.conf,$(plugstack)/inquest.conf,s|^optional [^ ]*|optional $(so)|;s|^#optional [^ ]*|#optional $(job_so)|))
ifeq ($(DESTDIR),)
	@echo "Left to do on this node, as root:"
	@echo "  systemd-sysusers && systemd-tmpfiles --create inquest-journal.conf"
	@echo "  grep -r plugstack.conf.d $(sysconfdir)/slurm/plugstack.conf ||"
	@echo "    echo 'include $(plugstack)/*.conf' >>$(sysconfdir)/slurm/plugstack.conf"
	@echo "  inquest check node      # where the command is installed, too"
endif

install-inquest:
	@$(call put,755,$(TARGET)/release/inquest,$(bindir)/inquest)
	@$(call put,644,packaging/sysusers.d/inquest.conf,$(sysusersdir)/inquest.conf)
	@$(call put,644,packaging/tmpfiles.d/inquest.conf,$(tmpfilesdir)/inquest.conf)
	@for unit in $(units); do \
	  $(call put_edited,644,packaging/systemd/inquest-$$unit.service,$(unitdir)/inquest-$$unit.service,s|^ExecStart=[^ ]*|ExecStart=$(bindir)/inquest|) || exit 1; \
	done
	@for page in $(TARGET)/share/man/*.[1-8]; do \
	  $(call put,644,$$page,$(mandir)/man$${page##*.}/$${page##*/}) || exit 1; \
	done
	@$(call unless_there,$(sysconfdir)/inquest/inquest.toml,\
	  $(call put,644,packaging/inquest.toml,$(sysconfdir)/inquest/inquest.toml))
	@$(call unless_there,$(sysconfdir)/inquest/rules.toml,\
	  $(call put,644,packaging/rules.toml,$(sysconfdir)/inquest/rules.toml))
	@$(call put,644,$(TARGET)/share/completions/bash,$(datadir)/bash-completion/completions/inquest)
	@$(call put,644,$(TARGET)/share/completions/zsh,$(datadir)/zsh/site-functions/_inquest)
	@$(call put,644,$(TARGET)/share/completions/fish,$(datadir)/fish/vendor_completions.d/inquest.fish)
ifeq ($(DESTDIR),)
	@echo "Left to do, as root:"
	@echo "  systemd-sysusers && systemd-tmpfiles --create inquest.conf && systemctl daemon-reload"
	@echo "  systemctl enable --now inquest-collect   # once, where the journals of all nodes come together"
	@echo "  systemctl enable --now inquest-agent     # on compute nodes, if wanted: deaths of all processes, notes"
	@echo "  systemctl enable --now inquest-serve     # dashboard and metrics, beside the collector, if wanted"
	@echo "  inquest check"
endif

install-dashboards:
	@for file in packaging/grafana/*.json packaging/prometheus/inquest.rules.yml; do \
	  $(call put,644,$$file,$(datadir)/inquest/$${file#packaging/}) || exit 1; \
	done

uninstall:
	rm -f $(DESTDIR)$(so) $(DESTDIR)$(job_so) $(DESTDIR)$(bindir)/inquest
	rm -f $(DESTDIR)$(sysusersdir)/inquest.conf $(DESTDIR)$(sysusersdir)/inquest-journal.conf
	rm -f $(DESTDIR)$(tmpfilesdir)/inquest.conf $(DESTDIR)$(tmpfilesdir)/inquest-journal.conf
	rm -f $(units:%=$(DESTDIR)$(unitdir)/inquest-%.service) $(DESTDIR)$(mandir)/man[1-8]/inquest*.[1-8]
	rm -f $(DESTDIR)$(mandir)/man8/spank_inquest.8 $(DESTDIR)$(datadir)/bash-completion/completions/inquest
	rm -f $(DESTDIR)$(datadir)/zsh/site-functions/_inquest $(DESTDIR)$(datadir)/fish/vendor_completions.d/inquest.fish
	rm -rf $(DESTDIR)$(datadir)/inquest
