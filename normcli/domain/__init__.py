"""The words of normcli: frozen values and pure mathematics. numpy only, no input or output."""
